// Package keyring stores the keys that sign access tokens. They are in a directory with two files,
// in the format that the functions read:
//
//	signing.jwks    private JWK Set; its first key signs (SIGNING_KEYS_FILE)
//	verifying.jwks  public JWK Set; all its keys verify (VERIFYING_KEYS_FILE)
//
// A rotation has three steps with a wait between them. All sessions continue:
//
//	publish   add a new key to the verifying set, and to the signing set as its second key
//	promote   make it the first key of the signing set, and destroy the old private key
//	withdraw  remove the old public key from the verifying set
//
// Promote waits until every verifier has had time to fetch the new key. Withdraw waits until the
// last token of the old key has expired. The time of the last change is a member of the signing
// set, as RFC 7517 §5 allows. The time of the file would be lost in a Kubernetes Secret.
//
// A key signs only if it is in the verifying set, also after a crash. The verifying file is written
// first, and each file is replaced by one rename. An interrupted step leaves at most a public key
// without its private key, and the next step withdraws it. A lock on the directory lets only one
// process change it at a time.
//
// After a theft of signing.jwks, all its keys are compromised: rotate with force until none of them
// is in the verifying set.
//
// The keys command and the local runner use this package. The functions only read the files.
package keyring

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/confirmation"
)

// The files of a keyring.
const (
	SigningFile   = "signing.jwks"
	VerifyingFile = "verifying.jwks"
)

const (
	// CacheLife is the time for which a verifier may cache the published set. It is the max-age
	// that jwks sends.
	CacheLife = 300 * time.Second

	// Rollout is the time that a deployment of the files may take. The keyring cannot observe a
	// deployment, so every wait includes this time.
	Rollout = 5 * time.Minute
)

// A Kind is a kind of rotation step.
type Kind uint8

// The steps, in their order.
const (
	Published Kind = iota + 1
	Promoted
	Withdrawn
)

// A Step is the result of Rotate.
type Step struct {
	Kind Kind
	Keys []string  // the ids of the keys that were published, promoted or withdrawn
	Next time.Time // time from which the next step is safe; zero after the last step
	Risk bool      // the step was forced before it was safe
}

// Options of a rotation.
type Options struct {
	Now   time.Time
	Life  time.Duration // the longest lifetime of an access token (ACCESS_TOKEN_TTL)
	Force bool          // take the step even if it is not safe yet

	Algorithm string // of the key to publish; empty: that of the key that signs
}

// TooEarly is the error of a step that is not safe yet.
type TooEarly struct {
	Kind  Kind
	Until time.Time // zero if the signing set has no time of its last change
}

func (e *TooEarly) Error() string {
	action := "withdraw the old key"
	if e.Kind == Promoted {
		action = "sign with the new key"
	}
	if e.Until.IsZero() {
		return fmt.Sprintf("%s has no member changed with its last change: run with -force to %s", SigningFile, action)
	}
	return fmt.Sprintf("too early to %s: try again from %s on", action, e.Until.Format(time.RFC3339))
}

// Create creates the directory if it does not exist, and a keyring with one key of an algorithm in
// it. If there is a keyring already, it changes nothing and returns fs.ErrExist.
func Create(dir, algorithm string, now time.Time) error {
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
	key, err := generate(algorithm)
	if err != nil {
		return err
	}
	r := &ring{dir: dir, verifying: []token.JWK{key}}
	if err := r.writeVerifying(); err != nil {
		return err
	}
	return r.writeSigning([]token.JWK{key}, now)
}

// Files holds the paths of the files of a keyring.
type Files struct{ Signing, Verifying string }

// Ensure returns the files of a keyring. It creates the keyring if there is none.
func Ensure(dir string, now time.Time) (Files, error) {
	if err := Create(dir, token.EdDSA, now); err != nil && !errors.Is(err, fs.ErrExist) {
		return Files{}, err
	}
	files := Files{filepath.Join(dir, SigningFile), filepath.Join(dir, VerifyingFile)}
	for _, path := range []string{files.Signing, files.Verifying} {
		if _, err := os.Stat(path); err != nil { // an earlier start was interrupted, or the file was removed
			return Files{}, fmt.Errorf("%w: a keyring has two files; restore this one, or remove the other one to create new keys", err)
		}
	}
	return files, nil
}

// Public returns the content of the verifying file. It first checks that the two files belong
// together.
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

// MailFile is the file with the keys of the tokens and codes in mails (MAIL_KEYS_FILE). It is in the
// directory of a keyring, and no rotation changes it.
const MailFile = "mail.keys"

// EnsureMail returns the path of the file with the keys of mails. It creates the directory and the
// file, with one key, if they do not exist.
func EnsureMail(dir string) (path string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	unlock, err := lock(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	path = filepath.Join(dir, MailFile)
	if _, err = os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		err = replace(dir, MailFile, 0o600, []byte(confirmation.NewKey()+"\n"))
	}
	return path, err
}

// Rotate takes the next step of a rotation, or starts one. If the step is not safe yet and not
// forced, it changes nothing and returns a *TooEarly.
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
	if o.Algorithm != "" && s.Kind != Published {
		return Step{}, errors.New("a rotation is not complete: its next step publishes no key, so it has no algorithm")
	}
	if early != nil && !o.Force {
		return Step{}, early
	}
	s.Risk = early != nil
	switch s.Kind {
	case Published:
		err = r.publish(&s, o)
	case Promoted:
		err = r.promote(&s, o)
	case Withdrawn:
		err = r.withdraw(&s)
	}
	return s, err
}

// promoteAfter is the wait after a publication. Then every function has the new key, and so have
// the verifiers that read jwks just before the key was deployed.
const promoteAfter = Rollout + CacheLife

// withdrawAfter is the wait after a promotion. Then the last instance that signs with the old key
// has stopped, and its last token has expired by the slowest clock.
func (o Options) withdrawAfter() time.Duration { return Rollout + o.Life + token.Leeway }

// ring is the content of the two files. Each of its keys has an id.
type ring struct {
	dir       string
	signing   []token.JWK
	verifying []token.JWK // may have private keys; see public
	changed   time.Time   // last change of the signing set
}

// next returns the next step, and an error if the step is not safe yet.
func (r *ring) next(o Options) (Step, *TooEarly) {
	var s Step
	var wait time.Duration
	switch {
	case len(r.signing) > 1:
		s.Kind, wait = Promoted, promoteAfter
	case len(r.retired()) > 0:
		s.Kind, wait = Withdrawn, o.withdrawAfter()
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

func (r *ring) publish(s *Step, o Options) error {
	key, err := generate(cmp.Or(o.Algorithm, r.signing[0].Algorithm))
	if err != nil {
		return err
	}
	r.verifying = append(r.verifying, key)
	if err := r.writeVerifying(); err != nil {
		return err
	}
	s.Keys, s.Next = ids(key), o.Now.Add(promoteAfter)
	return r.writeSigning(append(r.signing, key), o.Now)
}

func (r *ring) promote(s *Step, o Options) error {
	s.Keys, s.Next = ids(r.signing[1]), o.Now.Add(o.withdrawAfter())
	return r.writeSigning(r.signing[1:], o.Now)
}

func (r *ring) withdraw(s *Step) error {
	s.Keys = ids(r.retired()...)
	r.verifying = r.signing
	return r.writeVerifying()
}

// retired returns the verifying keys without a private key in the signing set.
func (r *ring) retired() []token.JWK {
	return slices.DeleteFunc(slices.Clone(r.verifying), func(k token.JWK) bool { return contains(r.signing, k) })
}

// signingSet is the content of the signing file.
type signingSet struct {
	token.Set
	Changed time.Time `json:"changed,omitzero"`
}

// open reads both files as the functions read them. Every error names the file, and none includes
// its content.
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

// complete returns keys with all their members. A file may omit some of them.
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

// replace replaces a file by one rename, after its content is on the disk. The temporary file has a
// fixed name, so the next write overwrites a file that a crash left. That file is never read.
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
	if err := f.Chmod(mode); err != nil { // independent of the umask
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

func generate(algorithm string) (token.JWK, error) {
	key, err := token.GenerateKey(algorithm)
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
