// Package keyring keeps the keys that sign access tokens, in a directory of two
// files that the functions read as they are:
//
//	signing.jwks    private JWK Set; its first key signs (SIGNING_KEYS_FILE)
//	verifying.jwks  public JWK Set; all its keys verify (VERIFYING_KEYS_FILE)
//
// A rotation is three steps, with a wait between them, and logs nobody out:
//
//	publish   a new key joins the verifying set, and waits in second place in the signing set
//	promote   it takes the first place; the old private key is destroyed
//	withdraw  the old public key leaves the verifying set
//
// Promote waits until every verifier has had time to fetch the new key, withdraw
// until the last token of the old key has expired. When the signing set last
// changed is written into it, as a member of its own, which RFC 7517 §5 allows: a
// file's time would be lost on the way through a Kubernetes Secret.
//
// A key signs only if it is in the verifying set, whatever happens: of two files
// the verifying one is written first, each is replaced in one rename, and a step
// that was cut short leaves at most a public key without a private one, which the
// next step withdraws. A lock on the directory lets one process change it at a
// time.
//
// A stolen signing.jwks is stolen with all its keys: rotate by force until none of
// them is left in the verifying set.
//
// The keys command calls it, and the local runner, which makes keys at its first
// start. The functions never do: they only read.
package keyring

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/token"
)

// The files of a keyring.
const (
	SigningFile   = "signing.jwks"
	VerifyingFile = "verifying.jwks"
)

const (
	// CacheLife is how long a verifier may keep the published set: the max-age
	// that jwks sends.
	CacheLife = 300 * time.Second

	// Rollout is how long a deployment of the files may take. Nobody tells the
	// keyring when one is done, so every wait begins with it.
	Rollout = 5 * time.Minute
)

// A Kind is one of the steps of a rotation.
type Kind uint8

// The steps, in their order.
const (
	Published Kind = iota + 1
	Promoted
	Withdrawn
)

// A Step is what Rotate did.
type Step struct {
	Kind Kind
	Keys []string  // the ids of the keys that were published, promoted or withdrawn
	Next time.Time // from when the step after it is safe; zero after the last
	Risk bool      // it was taken by force before it was safe
}

// Options of a rotation.
type Options struct {
	Now   time.Time
	Life  time.Duration // the longest life of a token (ACCESS_TOKEN_TTL)
	Force bool          // take the step even if it is too early
}

// TooEarly is the error of a step whose time has not come.
type TooEarly struct {
	Kind  Kind
	Until time.Time // zero if the signing set does not say when it was changed
}

func (e *TooEarly) Error() string {
	what := "the old key may be withdrawn"
	if e.Kind == Promoted {
		what = "the new key may sign"
	}
	if e.Until.IsZero() {
		return fmt.Sprintf("%s does not say when it was changed, so %s only by force", SigningFile, what)
	}
	return fmt.Sprintf("too early: %s from %s on", what, e.Until.Format(time.RFC3339))
}

// Create makes the directory, if need be, and a keyring of one key in it. Where
// there is one already it changes nothing and returns fs.ErrExist.
func Create(dir string, now time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	for _, name := range []string{SigningFile, VerifyingFile} {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err == nil {
			return &fs.PathError{Op: "create keys", Path: path, Err: fs.ErrExist}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	key, err := generate()
	if err != nil {
		return err
	}
	r := &ring{dir: dir, verifying: []token.JWK{key}}
	if err := r.writeVerifying(); err != nil {
		return err
	}
	return r.writeSigning([]token.JWK{key}, now)
}

// Files are the paths of a keyring's files.
type Files struct{ Signing, Verifying string }

// Ensure returns the files of a keyring, after it has made one where there is
// none.
func Ensure(dir string, now time.Time) (Files, error) {
	if err := Create(dir, now); err != nil && !errors.Is(err, fs.ErrExist) {
		return Files{}, err
	}
	files := Files{filepath.Join(dir, SigningFile), filepath.Join(dir, VerifyingFile)}
	for _, path := range []string{files.Signing, files.Verifying} {
		if _, err := os.Stat(path); err != nil { // a start that was cut short, or somebody's hand
			return Files{}, fmt.Errorf("%w: it belongs to a keyring of two files; restore it, or remove the other to begin anew", err)
		}
	}
	return files, nil
}

// Public returns the content of the verifying file, after it has checked that the
// two files belong together.
func Public(dir string) ([]byte, error) {
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, err := open(dir)
	if err != nil {
		return nil, err
	}
	return r.public()
}

// Rotate takes the next step of the rotation, or begins one. It returns a
// *TooEarly and changes nothing if the step is not safe yet and not forced.
func Rotate(dir string, o Options) (Step, error) {
	unlock, err := lock(dir)
	if err != nil {
		return Step{}, err
	}
	defer unlock()
	r, err := open(dir)
	if err != nil {
		return Step{}, err
	}
	s, early := r.next(o)
	if early != nil && !o.Force {
		return Step{}, early
	}
	s.Risk = early != nil
	switch s.Kind {
	case Published:
		err = r.publish(&s, o.Now)
	case Promoted:
		err = r.promote(&s, o)
	case Withdrawn:
		err = r.withdraw(&s)
	}
	return s, err
}

// untilFetched is how long after its publication a key may sign: every function
// has it, and so have those who asked jwks just before jwks had it.
const untilFetched = Rollout + CacheLife

// untilExpired is how long after a promotion a token of the old key may count:
// the last instance that signs with it has gone, its last token has expired, and
// so it has by the slowest clock.
func (o Options) untilExpired() time.Duration { return Rollout + o.Life + token.Leeway }

// ring is the content of the two files. Its keys are complete: each has its id.
type ring struct {
	dir       string
	signing   []token.JWK
	verifying []token.JWK // may have private keys; see public
	changed   time.Time   // the signing set
}

// next tells which step is next, and why it should not be taken yet.
func (r *ring) next(o Options) (Step, *TooEarly) {
	var s Step
	var wait time.Duration
	switch {
	case len(r.signing) > 1:
		s.Kind, wait = Promoted, untilFetched
	case len(r.retired()) > 0:
		s.Kind, wait = Withdrawn, o.untilExpired()
	default:
		return Step{Kind: Published}, nil
	}
	if r.changed.IsZero() {
		return s, &TooEarly{Kind: s.Kind}
	}
	if until := r.changed.Add(wait); o.Now.Before(until) {
		return s, &TooEarly{s.Kind, until}
	}
	return s, nil
}

func (r *ring) publish(s *Step, now time.Time) error {
	key, err := generate()
	if err != nil {
		return err
	}
	r.verifying = append(r.verifying, key)
	if err := r.writeVerifying(); err != nil {
		return err
	}
	s.Keys, s.Next = ids(key), now.Add(untilFetched)
	return r.writeSigning(append(r.signing, key), now)
}

func (r *ring) promote(s *Step, o Options) error {
	s.Keys, s.Next = ids(r.signing[1]), o.Now.Add(o.untilExpired())
	return r.writeSigning(r.signing[1:], o.Now)
}

func (r *ring) withdraw(s *Step) error {
	s.Keys = ids(r.retired()...)
	r.verifying = r.signing
	return r.writeVerifying()
}

// retired returns the keys that verify and have no private half here.
func (r *ring) retired() []token.JWK {
	return slices.DeleteFunc(slices.Clone(r.verifying), func(k token.JWK) bool { return contains(r.signing, k) })
}

// signingSet is the signing file.
type signingSet struct {
	token.Set
	Changed time.Time `json:"changed,omitzero"`
}

// open reads both files as the functions read them. Every error names the file
// and none holds any of its content.
func open(dir string) (*ring, error) {
	r := &ring{dir: dir}
	path := filepath.Join(dir, SigningFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	private, err := token.ParsePrivate(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var set signingSet
	if json.Unmarshal(data, &set) != nil {
		return nil, fmt.Errorf("%s: changed is not a time (RFC 3339)", path)
	}
	r.changed = set.Changed
	if r.signing, err = complete(private.Public()); err != nil {
		return nil, err
	}
	for i := range r.signing {
		r.signing[i].D = set.Keys[i].D
	}

	path = filepath.Join(dir, VerifyingFile)
	if data, err = os.ReadFile(path); err != nil {
		return nil, err
	}
	public, err := token.ParsePublic(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.verifying, err = complete(public); err != nil {
		return nil, err
	}
	for _, k := range r.signing {
		if !contains(r.verifying, k) {
			return nil, fmt.Errorf("%s: the key %s of %s is missing", path, k.ID, SigningFile)
		}
	}
	return r, nil
}

// complete returns keys with all their members, which a file need not have.
func complete(keys *token.VerifyingKeys) ([]token.JWK, error) {
	var set token.Set
	err := json.Unmarshal(keys.JWKS(), &set)
	return set.Keys, err
}

func (r *ring) writeSigning(keys []token.JWK, now time.Time) error {
	data, err := encode(signingSet{token.Set{Keys: keys}, now.UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	return replace(r.dir, SigningFile, 0o600, data)
}

func (r *ring) writeVerifying() error {
	data, err := r.public()
	if err != nil {
		return err
	}
	return replace(r.dir, VerifyingFile, 0o644, data)
}

func (r *ring) public() ([]byte, error) {
	var set token.Set
	for _, k := range r.verifying {
		set.Keys = append(set.Keys, k.Public())
	}
	return encode(set)
}

func encode(set any) ([]byte, error) {
	data, err := json.Marshal(set, jsontext.WithIndent("  "))
	return append(data, '\n'), err
}

// replace puts a file in its place in one rename, after its content is on the
// disk. The file it is written to has a fixed name: what a crash leaves of it is
// overwritten by the next try and never read.
func replace(dir, name string, mode fs.FileMode, data []byte) (err error) {
	path := filepath.Join(dir, name)
	temp := filepath.Join(dir, "."+name+".new")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(temp)
		}
	}()
	if err := f.Chmod(mode); err != nil { // whatever the umask
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(dir)
}

func generate() (token.JWK, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return token.JWK{}, err
	}
	return token.NewJWK(key), nil
}

func contains(keys []token.JWK, key token.JWK) bool {
	return slices.ContainsFunc(keys, func(k token.JWK) bool { return k.ID == key.ID })
}

func ids(keys ...token.JWK) []string {
	var ids []string
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	return ids
}
