package bearer

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	maxIntrospection = 64 << 10        // bytes of a response
	activeFor        = 5 * time.Second // how long the answer "active" is used
	maxVerdicts      = 4096
)

// An introspection asks the auth system about the tokens that the filter of the feed contains. It
// remembers that a token is revoked until the token expires, and that a token is active for
// activeFor. While the endpoint does not answer, one request in retryDelay tries it.
type introspection struct {
	ask func(ctx context.Context, raw string) (active bool, err error)
	now func() time.Time

	mu       sync.Mutex
	verdicts map[[sha256.Size]byte]verdict
	flights  map[[sha256.Size]byte]*inquiry
	err      error // of the last failed request
	outage   outage
}

// An inquiry is a request in flight. Its waiters read the result from it, because the verdicts may
// be cleared meanwhile.
type inquiry struct {
	*flight
	active bool // after the flight
}

type verdict struct {
	active bool
	until  time.Time
}

// active reports whether a token is active. Its error means that it could not find out.
func (i *introspection) active(ctx context.Context, raw string, expiry time.Time) (bool, error) {
	digest := sha256.Sum256([]byte(raw))
	i.mu.Lock()
	now := i.now()
	if v, ok := i.verdicts[digest]; ok && now.Before(v.until) {
		i.mu.Unlock()
		return v.active, nil
	}
	if i.outage.lasts(now) && (now.Sub(i.outage.failed) < retryDelay || len(i.flights) > 0) {
		defer i.mu.Unlock()
		return false, i.err
	}
	running := i.flights[digest]
	if running == nil {
		running = new(inquiry)
		running.flight = fly(ctx, func(ctx context.Context) error {
			active, err := i.ask(ctx, raw)
			i.mu.Lock()
			defer i.mu.Unlock()
			delete(i.flights, digest)
			i.outage.record(err, i.now())
			if err != nil {
				i.err = err
				return err
			}
			until := expiry
			if active {
				until = now.Add(activeFor)
			}
			i.remember(digest, verdict{active, until})
			running.active = active
			return nil
		})
		i.flights[digest] = running
	}
	i.mu.Unlock()
	if err := running.wait(ctx); err != nil {
		return false, err
	}
	return running.active, nil
}

// remember stores a verdict. If there is no space, it removes the expired ones, or all.
func (i *introspection) remember(digest [sha256.Size]byte, v verdict) {
	if len(i.verdicts) >= maxVerdicts {
		now := i.now()
		for d, v := range i.verdicts {
			if !now.Before(v.until) {
				delete(i.verdicts, d)
			}
		}
		if len(i.verdicts) >= maxVerdicts {
			clear(i.verdicts)
		}
	}
	i.verdicts[digest] = v
}

// introspectURL returns a function that asks an endpoint of RFC 7662. The client authenticates with
// HTTP Basic, if it has a name.
func introspectURL(client *http.Client, target, name, secret string) func(context.Context, string) (bool, error) {
	return func(ctx context.Context, raw string) (bool, error) {
		form := url.Values{"token": {raw}, "token_type_hint": {"access_token"}}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(form.Encode()))
		if err != nil {
			return false, errors.New("the URL is not valid")
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if name != "" {
			// RFC 6749 section 2.3.1 encodes both parts before the encoding of HTTP Basic.
			r.SetBasicAuth(url.QueryEscape(name), url.QueryEscape(secret))
		}
		_, body, err := send(client, r, maxIntrospection)
		if err != nil {
			return false, err
		}
		var answer struct {
			Active *bool `json:"active"`
		}
		if json.Unmarshal(body, &answer) != nil || answer.Active == nil {
			return false, errors.New("the response is not that of an introspection endpoint")
		}
		return *answer.Active, nil
	}
}
