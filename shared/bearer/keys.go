package bearer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/bearer/token"
)

const (
	maxKeys       = 256 << 10        // bytes of a JWK Set
	keysMaxAge    = 5 * time.Minute  // the max-age of the published set
	unknownKeyGap = 30 * time.Second // at least, between two loads of a set
	keysLast      = 24 * time.Hour   // after the last time that the URL has answered
)

// sources returns a key of the first source that has it. If a source could not find out and no
// other one has the key, sources returns the error.
type sources []token.KeySource

func (s sources) Key(ctx context.Context, id string) (*token.Key, error) {
	var failed error
	for _, source := range s {
		key, err := source.Key(ctx, id)
		if key != nil {
			return key, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// A keySet is a JWK Set that is loaded again while it is used: after keysMaxAge, so that a
// withdrawn key disappears, and for an unknown key id. A load for an unknown id comes at most every
// unknownKeyGap, because an attacker chooses the id.
type keySet struct {
	load func(context.Context) ([]byte, error)
	last time.Duration // how long the keys are used after they were loaded, or 0 for no limit
	now  func() time.Time
	log  *slog.Logger

	mu       sync.Mutex
	document []byte
	keys     *token.VerifyingKeys
	loaded   time.Time // the start of the last successful load
	tried    time.Time // the start of the last load
	err      error     // of the last load
	flight   *flight   // the load in flight, or nil
	outage   outage
}

// Key implements token.KeySource. It waits for a load without the key, and after a time without
// requests: the key may have been withdrawn in it.
func (s *keySet) Key(ctx context.Context, id string) (*token.Key, error) {
	s.mu.Lock()
	now := s.now()
	key := s.find(ctx, id, now)
	gap := unknownKeyGap
	if s.usable(now) == nil {
		gap = retryDelay
	}
	begins := s.flight == nil && (key == nil || now.Sub(s.loaded) >= keysMaxAge) && (s.tried.IsZero() || now.Sub(s.tried) >= gap)
	if begins {
		s.tried = now
		s.flight = fly(ctx, s.reload)
	}
	running, err := s.flight, s.err
	// in an outage, only the request that begins a load waits
	waits := now.Sub(s.loaded) >= 2*keysMaxAge && (begins || !s.outage.lasts(now))
	s.mu.Unlock()
	if key != nil && (running == nil || !waits) {
		return key, nil
	}
	if running == nil {
		return nil, err
	}
	if err := running.wait(ctx); err != nil {
		if key != nil {
			return key, nil // old keys are used while a load fails
		}
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(ctx, id, s.now()), nil
}

// usable returns the keys, or nil if there are none or if they are too old.
func (s *keySet) usable(now time.Time) *token.VerifyingKeys {
	if s.last > 0 && now.Sub(s.loaded) >= s.last {
		return nil
	}
	return s.keys
}

func (s *keySet) find(ctx context.Context, id string, now time.Time) *token.Key {
	keys := s.usable(now)
	if keys == nil {
		return nil
	}
	key, _ := keys.Key(ctx, id) // it has no error
	return key
}

// reload loads the set. After an error the old keys stay.
func (s *keySet) reload(ctx context.Context) error {
	document, err := s.load(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = s.set(document)
	}
	s.err, s.flight = err, nil
	s.outage.record(err, s.now())
	return err
}

func (s *keySet) set(document []byte) error {
	if s.keys == nil || !bytes.Equal(document, s.document) {
		keys, err := parseKeys(document, s.log)
		if err != nil {
			return err
		}
		s.document, s.keys = document, keys
	}
	s.loaded = s.tried
	return nil
}

// parseKeys parses a public JWK Set. It logs and ignores a key that it cannot use (RFC 7517 section
// 5), so that a new algorithm of the auth system does not stop this version of the package.
func parseKeys(document []byte, log *slog.Logger) (*token.VerifyingKeys, error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, errors.New("it is not a JWK Set")
	}
	var usable []jsontext.Value
	for i, key := range set.Keys {
		if _, err := token.ParsePublic(encodeSet(key)); err != nil {
			log.Warn("a verifying key is not used", "key", i+1, "error", cmp.Or(errors.Unwrap(err), err).Error())
			continue
		}
		usable = append(usable, key)
	}
	if len(usable) == 0 {
		return nil, errors.New("it has no public key for EdDSA or ES256")
	}
	return token.ParsePublic(encodeSet(usable...))
}

func encodeSet(keys ...jsontext.Value) []byte {
	document, err := json.Marshal(map[string][]jsontext.Value{"keys": keys})
	if err != nil {
		panic(err) // the keys are parsed JSON
	}
	return document
}

// fileKeys returns a function that reads a set from a file.
func fileKeys(path string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		file, err := os.Open(path)
		if err != nil {
			return nil, errors.New("the file cannot be read")
		}
		defer file.Close()
		document, err := io.ReadAll(io.LimitReader(file, maxKeys+1))
		switch {
		case err != nil:
			return nil, errors.New("the file cannot be read")
		case len(document) > maxKeys:
			return nil, fmt.Errorf("the file is larger than %d bytes", maxKeys)
		}
		return document, nil
	}
}

// urlKeys returns a function that fetches a set from a URL.
func urlKeys(client *http.Client, url string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, errors.New("the URL is not valid")
		}
		_, document, err := send(client, r, maxKeys)
		return document, err
	}
}
