package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/confirmation"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const life = 15 * time.Minute

func create(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data", "keys")
	if err := keyring.Create(dir, "EdDSA", noon); err != nil {
		t.Fatal(err)
	}
	return dir
}

func rotate(t *testing.T, dir string, now time.Time) keyring.Step {
	t.Helper()
	s, err := keyring.Rotate(dir, keyring.Options{Now: now, Life: life})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func force(t *testing.T, dir string, now time.Time) keyring.Step {
	t.Helper()
	s, err := keyring.Rotate(dir, keyring.Options{Now: now, Life: life, Force: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// deployed holds the keys of a function that started with the files of an earlier moment.
type deployed struct {
	issuer    *token.Issuer
	verifying *token.VerifyingKeys
}

func deploy(t *testing.T, dir string) deployed {
	t.Helper()
	private, err := token.ParsePrivate(read(t, dir, keyring.SigningFile))
	if err != nil {
		t.Fatal(err)
	}
	public, err := token.ParsePublic(read(t, dir, keyring.VerifyingFile))
	if err != nil {
		t.Fatal(err)
	}
	return deployed{token.NewIssuer(private, "ticketing", "ticketing", "web", life), public}
}

func (d deployed) issue(t *testing.T, now time.Time) string {
	t.Helper()
	raw, err := d.issuer.Issue(token.Claims{Subject: "u", Session: "5e", ID: "t", Email: "ann@example.com", IssuedAt: now})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (d deployed) verify(raw string, now time.Time) error {
	_, err := token.NewVerifier(d.verifying, "ticketing", "ticketing", func() time.Time { return now }, 0).Verify(context.Background(), raw)
	return err
}

// keys returns the ids of the keys in a file, in their order.
func keys(t *testing.T, dir, name string) []string {
	t.Helper()
	var set token.Set
	if err := json.Unmarshal(read(t, dir, name), &set); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, k := range set.Keys {
		ids = append(ids, k.ID)
	}
	return ids
}

// checkInvariants checks the invariants of a keyring: the functions can read both files, and every
// signing key is in the verifying set.
func checkInvariants(t *testing.T, dir string) {
	t.Helper()
	d := deploy(t, dir)
	if err := d.verify(d.issue(t, noon), noon); err != nil {
		t.Fatalf("a token of the signing set: got %v, want it to verify", err)
	}
	if strings.Contains(string(read(t, dir, keyring.VerifyingFile)), `"d"`) {
		t.Fatal("the verifying file contains a private key")
	}
}

// The test takes each step of a rotation at the first safe moment. After each step, old and new
// instances run in parallel for as long as a deployment and a cache may last. All of them must
// accept the tokens of each.
func TestRotate_OldAndNewInstances(t *testing.T) {
	dir := create(t)
	first := keys(t, dir, keyring.SigningFile)[0]
	now := noon.Add(24 * time.Hour)
	before := deploy(t, dir)
	var oldest deployed // the instances before the previous step

	for i, kind := range []keyring.Kind{keyring.Published, keyring.Promoted, keyring.Withdrawn, keyring.Published} {
		step := rotate(t, dir, now)
		if step.Kind != kind || step.Risk || len(step.Keys) != 1 {
			t.Fatalf("step %d: got %+v, want the kind %v, one key and no risk", i, step, kind)
		}
		checkInvariants(t, dir)
		after := deploy(t, dir)
		overlap := keyring.Rollout + keyring.CacheLife
		for _, since := range []time.Duration{0, time.Minute, keyring.Rollout, overlap - time.Second} {
			at := now.Add(since)
			for from, issuer := range map[string]deployed{"old": before, "new": after} {
				raw := issuer.issue(t, at)
				for to, verifier := range map[string]deployed{"old": before, "new": after} {
					for _, age := range []time.Duration{0, life - time.Second} {
						if kind == keyring.Promoted && from == "old" && since > keyring.Rollout {
							continue // the last instance with the old key has stopped
						}
						if err := verifier.verify(raw, at.Add(age)); err != nil {
							t.Errorf("step %d, %v after it: the %s verifier rejects a token of the %s issuer, %v old: %v", i, since, to, from, age, err)
						}
					}
				}
			}
		}
		if kind == keyring.Withdrawn {
			// the last token of the first key expires before the key is withdrawn
			if err := oldest.verify(oldest.issue(t, now.Add(-life-token.Leeway)), now); !errors.Is(err, token.ErrInvalid) {
				t.Errorf("a token of the withdrawn key: got %v, want ErrInvalid", err)
			}
		}
		oldest, before = before, after
		now = step.Next
		if kind == keyring.Withdrawn {
			if !step.Next.IsZero() || step.Keys[0] != first {
				t.Errorf("the last step: got %+v, want the key %s and no next step", step, first)
			}
			now = noon.Add(48 * time.Hour)
		}
	}
}

func TestRotate_Files(t *testing.T) {
	dir := create(t)
	a := keys(t, dir, keyring.SigningFile)[0]
	want := func(when string, signing, verifying []string) {
		t.Helper()
		if got := keys(t, dir, keyring.SigningFile); !slices.Equal(got, signing) {
			t.Errorf("%s: got the signing keys %v, want %v", when, got, signing)
		}
		if got := keys(t, dir, keyring.VerifyingFile); !slices.Equal(got, verifying) {
			t.Errorf("%s: got the verifying keys %v, want %v", when, got, verifying)
		}
		public, err := keyring.Public(dir)
		if err != nil || string(public) != string(read(t, dir, keyring.VerifyingFile)) {
			t.Errorf("%s: Public: got %s and %v, want the verifying file", when, public, err)
		}
	}
	want("at first", []string{a}, []string{a})

	now := noon
	published := rotate(t, dir, now)
	b := published.Keys[0]
	want("after publish", []string{a, b}, []string{a, b})
	if wait := published.Next.Sub(now); wait != 10*time.Minute {
		t.Errorf("got the wait %v before promote, want 10m", wait)
	}
	checkTooEarly(t, dir, keyring.Promoted, published.Next)

	now = published.Next
	promoted := rotate(t, dir, now)
	want("after promote", []string{b}, []string{a, b})
	if wait := promoted.Next.Sub(now); wait != 20*time.Minute+30*time.Second {
		t.Errorf("got the wait %v before withdraw, want 20m30s", wait)
	}
	checkTooEarly(t, dir, keyring.Withdrawn, promoted.Next)

	withdrawn := rotate(t, dir, promoted.Next)
	want("after withdraw", []string{b}, []string{b})
	if withdrawn.Keys[0] != a {
		t.Errorf("got the withdrawn keys %v, want %s", withdrawn.Keys, a)
	}
}

// checkTooEarly checks that Rotate returns TooEarly and changes nothing before a time.
func checkTooEarly(t *testing.T, dir string, kind keyring.Kind, until time.Time) {
	t.Helper()
	signing, verifying := string(read(t, dir, keyring.SigningFile)), string(read(t, dir, keyring.VerifyingFile))
	for _, now := range []time.Time{until.Add(-time.Millisecond), until.Add(-time.Hour), noon.AddDate(-1, 0, 0)} {
		_, err := keyring.Rotate(dir, keyring.Options{Now: now, Life: life})
		e, ok := errors.AsType[*keyring.TooEarly](err)
		if !ok || e.Kind != kind || !e.Until.Equal(until) || !strings.Contains(err.Error(), until.Format(time.RFC3339)) {
			t.Errorf("at %v: got %v, want TooEarly until %v", now, err, until)
		}
	}
	if signing != string(read(t, dir, keyring.SigningFile)) || verifying != string(read(t, dir, keyring.VerifyingFile)) {
		t.Error("a rejected step changed a file")
	}
}

func TestRotate_LongerTokenLifetime(t *testing.T) {
	dir := create(t)
	rotate(t, dir, noon)
	o := keyring.Options{Now: noon.Add(time.Hour), Life: 2 * time.Hour}
	step, err := keyring.Rotate(dir, o)
	if err != nil || step.Next.Sub(o.Now) != 2*time.Hour+5*time.Minute+30*time.Second {
		t.Errorf("got %+v and %v, want the next step after 2h5m30s", step, err)
	}
}

func TestRotate_ForceReplacesStolenKey(t *testing.T) {
	dir := create(t)
	stolen := deploy(t, dir)
	for i, want := range []struct {
		kind keyring.Kind
		risk bool
	}{{keyring.Published, false}, {keyring.Promoted, true}, {keyring.Withdrawn, true}} {
		if s := force(t, dir, noon); s.Kind != want.kind || s.Risk != want.risk {
			t.Errorf("step %d: got %+v, want %+v", i, s, want)
		}
		checkInvariants(t, dir)
	}
	if err := deploy(t, dir).verify(stolen.issue(t, noon), noon); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("a token of the stolen key: got %v, want ErrInvalid", err)
	}
}

func TestRotate_ForceAfterTheWait(t *testing.T) {
	dir := create(t)
	rotate(t, dir, noon)
	if s := force(t, dir, noon.Add(10*time.Minute)); s.Kind != keyring.Promoted || s.Risk {
		t.Errorf("got %+v, want Promoted without risk", s)
	}
}

func TestCreate_NeverOverwrites(t *testing.T) {
	for _, name := range []string{keyring.SigningFile, keyring.VerifyingFile} {
		t.Run(name+" alone", func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := keyring.Create(dir, "EdDSA", noon); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want ErrExist for %s", err, path)
			}
			if got := string(read(t, dir, name)); got != "mine" {
				t.Errorf("got the content %s, want it unchanged", got)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 1 {
				t.Errorf("got the files %v, want one", entries)
			}
		})
	}
}

func TestEnsure_CreatesOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "keys")
	var before string
	for range 2 {
		files, err := keyring.Ensure(dir, noon)
		if err != nil || files.Signing != filepath.Join(dir, "signing.jwks") || files.Verifying != filepath.Join(dir, "verifying.jwks") {
			t.Fatalf("got %+v and %v, want the two files in %s", files, err, dir)
		}
		checkInvariants(t, dir)
		after := string(read(t, dir, keyring.SigningFile))
		if before != "" && before != after {
			t.Error("the second call changed the keys")
		}
		before = after
	}
	if _, err := keyring.Ensure(filepath.Join(dir, "signing.jwks", "x"), noon); err == nil {
		t.Error("a directory below a file: got no error, want one")
	}
}

func TestKeyring_FileModes(t *testing.T) {
	dir := create(t)
	check := func() {
		t.Helper()
		for name, want := range map[string]fs.FileMode{"": 0o700 | fs.ModeDir, keyring.SigningFile: 0o600, keyring.VerifyingFile: 0o644} {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Mode() != want {
				t.Errorf("%s: got the mode %v and %v, want %v", name, info.Mode(), err, want)
			}
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 2 {
			t.Errorf("got the files %v, want two", entries)
		}
	}
	check()
	// a file that others can read, and such a temporary file after a crash
	if err := os.Chmod(filepath.Join(dir, keyring.SigningFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "."+keyring.SigningFile+".new"), []byte("cut sh"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		force(t, dir, noon)
		check()
		checkInvariants(t, dir)
	}
}

func TestRotate_InvalidFile(t *testing.T) {
	dir := create(t)
	good := map[string]string{}
	for _, name := range []string{keyring.SigningFile, keyring.VerifyingFile} {
		good[name] = string(read(t, dir, name))
	}
	other := string(read(t, create(t), keyring.VerifyingFile))
	for _, c := range []struct{ name, file, content, want string }{
		{"an empty signing file", keyring.SigningFile, "", ": not well-formed JSON (byte 0)"},
		{"a PEM file", keyring.SigningFile, "-----BEGIN PRIVATE KEY-----\n", ": not well-formed JSON (byte 1)"},
		{"a public signing file", keyring.SigningFile, good[keyring.VerifyingFile], ": key 1: it is public (it has no d) and the set is private"},
		{"a broken time", keyring.SigningFile, strings.Replace(good[keyring.SigningFile], "2026-", "tomorrow-", 1), ": changed is not a time (RFC 3339)"},
		{"an empty verifying file", keyring.VerifyingFile, "", ": not well-formed JSON (byte 0)"},
		{"a private verifying file", keyring.VerifyingFile, good[keyring.SigningFile], ": key 1: it is private (it has d) and the set is public"},
		{"a verifying file of another keyring", keyring.VerifyingFile, other, ": the key " + keys(t, dir, keyring.SigningFile)[0] + " of signing.jwks is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, c.file)
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			defer os.WriteFile(path, []byte(good[c.file]), 0o600)
			_, err := keyring.Rotate(dir, keyring.Options{Now: noon, Life: life, Force: true})
			if err == nil || err.Error() != path+c.want {
				t.Errorf("Rotate: got %v, want %s", err, path+c.want)
			}
			if _, err := keyring.Public(dir); err == nil || err.Error() != path+c.want {
				t.Errorf("Public: got %v, want %s", err, path+c.want)
			}
			if got := string(read(t, dir, c.file)); got != c.content {
				t.Error("the file was changed")
			}
		})
	}
	for _, name := range []string{keyring.SigningFile, keyring.VerifyingFile} {
		t.Run("no "+name, func(t *testing.T) {
			dir := create(t)
			path := filepath.Join(dir, name)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if _, err := keyring.Rotate(dir, keyring.Options{Now: noon, Life: life}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want ErrNotExist for %s", err, path)
			}
		})
	}
	t.Run("no directory", func(t *testing.T) {
		if _, err := keyring.Rotate(filepath.Join(dir, "none"), keyring.Options{Now: noon, Life: life}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want ErrNotExist", err)
		}
	})
}

// Keys from other software may have no kid and no time of their last change.
func TestRotate_NoTimeOfLastChange(t *testing.T) {
	dir := create(t)
	rotate(t, dir, noon)
	path := filepath.Join(dir, keyring.SigningFile)
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(read(t, dir, keyring.SigningFile), &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		delete(k, "kid")
	}
	bare, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bare, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = keyring.Rotate(dir, keyring.Options{Now: noon.AddDate(1, 0, 0), Life: life})
	e, ok := errors.AsType[*keyring.TooEarly](err)
	if !ok || !e.Until.IsZero() || err.Error() != "signing.jwks has no member changed with its last change: run with -force to sign with the new key" {
		t.Errorf("got %v, want TooEarly without a time", err)
	}
	if s := force(t, dir, noon); s.Kind != keyring.Promoted || !s.Risk {
		t.Errorf("got %+v, want Promoted with risk", s)
	}
	checkInvariants(t, dir)
	if got := keys(t, dir, keyring.SigningFile); len(got) != 1 || got[0] == "" {
		t.Errorf("got the signing keys %v, want one with an id", got)
	}
	checkTooEarly(t, dir, keyring.Withdrawn, noon.Add(20*time.Minute+30*time.Second))
}

// If the second of two writes fails, the result of the first one is safe, and the next step removes
// it.
func TestRotate_InterruptedPublication(t *testing.T) {
	dir := create(t)
	a := keys(t, dir, keyring.SigningFile)
	obstacle := filepath.Join(dir, "."+keyring.SigningFile+".new", "x")
	if err := os.MkdirAll(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	now := noon.Add(24 * time.Hour)
	if _, err := keyring.Rotate(dir, keyring.Options{Now: now, Life: life}); err == nil {
		t.Fatal("Rotate: got no error, want one of the blocked temporary file")
	}
	checkInvariants(t, dir)
	if got := keys(t, dir, keyring.SigningFile); !slices.Equal(got, a) {
		t.Errorf("got the signing keys %v, want %v", got, a)
	}
	lost := keys(t, dir, keyring.VerifyingFile)[1:]
	if err := os.RemoveAll(filepath.Dir(obstacle)); err != nil {
		t.Fatal(err)
	}
	if s := rotate(t, dir, now); s.Kind != keyring.Withdrawn || !slices.Equal(s.Keys, lost) {
		t.Errorf("the next step: got %+v, want Withdrawn with %v", s, lost)
	}
	if s := rotate(t, dir, now); s.Kind != keyring.Published {
		t.Errorf("the step after it: got %+v, want Published", s)
	}
	checkInvariants(t, dir)
}

// A child process rotates without a pause until the test kills it, each time after another delay.
// Meanwhile the test reads the files, as a starting function does.
func TestRotate_KilledAtAnyMoment(t *testing.T) {
	if dir := os.Getenv("KEYRING_DIR"); dir != "" {
		for {
			if _, err := keyring.Rotate(dir, keyring.Options{Now: noon, Life: life, Force: true}); err != nil {
				fmt.Println(err)
				os.Exit(3)
			}
			fmt.Println("rotated")
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := create(t)
	first := keys(t, dir, keyring.SigningFile)[0]
	for i := range 20 {
		child := exec.Command(self, "-test.run=^"+t.Name()+"$")
		child.Env = append(os.Environ(), "KEYRING_DIR="+dir)
		stdout, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := stdout.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 370 * time.Microsecond)
		if _, err := token.ParsePrivate(read(t, dir, keyring.SigningFile)); err != nil {
			t.Error(err)
		}
		if _, err := token.ParsePublic(read(t, dir, keyring.VerifyingFile)); err != nil {
			t.Error(err)
		}
		child.Process.Kill()
		if err := child.Wait(); child.ProcessState.Exited() {
			t.Fatalf("the child exited by itself, want it killed: %v", err)
		}
		checkInvariants(t, dir)
	}
	if keys(t, dir, keyring.SigningFile)[0] == first {
		t.Error("20 children changed no key, want a rotation")
	}
	force(t, dir, noon)
	checkInvariants(t, dir)
}

func TestKeyring_ParallelCalls(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	var created atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			switch err := keyring.Create(dir, "EdDSA", noon); {
			case err == nil:
				created.Add(1)
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := created.Load(); n != 1 {
		t.Fatalf("got %d keyrings, want 1", n)
	}
	checkInvariants(t, dir)

	// without force only one step is safe at this time, so one call publishes
	var published atomic.Int32
	for range 8 {
		wg.Go(func() {
			_, err := keyring.Rotate(dir, keyring.Options{Now: noon, Life: life})
			if err == nil {
				published.Add(1)
			} else if _, ok := errors.AsType[*keyring.TooEarly](err); !ok {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := published.Load(); n != 1 {
		t.Errorf("got %d published keys, want 1", n)
	}

	// with force each call takes a step: seven more steps end with the promotion of a third rotation
	var kinds [4]atomic.Int32
	for range 7 {
		wg.Go(func() {
			s, err := keyring.Rotate(dir, keyring.Options{Now: noon, Life: life, Force: true})
			if err != nil {
				t.Error(err)
			}
			kinds[s.Kind].Add(1)
		})
	}
	wg.Wait()
	if p, q, w := kinds[keyring.Published].Load(), kinds[keyring.Promoted].Load(), kinds[keyring.Withdrawn].Load(); p != 2 || q != 3 || w != 2 {
		t.Errorf("got %d published, %d promoted and %d withdrawn keys, want 2, 3 and 2", p, q, w)
	}
	checkInvariants(t, dir)
}

// During a change of the algorithm, old and new instances accept the tokens of each other.
func TestRotate_ChangesAlgorithm(t *testing.T) {
	for from, to := range map[string]string{"EdDSA": "ES256", "ES256": "EdDSA"} {
		t.Run(from+" to "+to, func(t *testing.T) {
			dir := t.TempDir()
			if err := keyring.Create(dir, from, noon); err != nil {
				t.Fatal(err)
			}
			now, before := noon, deploy(t, dir)
			for n, want := range []keyring.Kind{keyring.Published, keyring.Promoted, keyring.Withdrawn} {
				now = now.Add(time.Hour)
				o := keyring.Options{Now: now, Life: life, Algorithm: to}
				if n > 0 {
					if _, err := keyring.Rotate(dir, o); err == nil || !strings.Contains(err.Error(), "publishes no key") {
						t.Fatalf("step %d with an algorithm: got error %v, want one", n+1, err)
					}
					o.Algorithm = ""
				}
				step, err := keyring.Rotate(dir, o)
				if err != nil || step.Kind != want {
					t.Fatalf("step %d: got %+v, %v; want kind %d", n+1, step, err, want)
				}
				checkInvariants(t, dir)
				after := deploy(t, dir)
				for name, err := range map[string]error{
					"an old token at a new instance": after.verify(before.issue(t, now), now),
					"a new token at an old instance": before.verify(after.issue(t, now), now),
				} {
					if err != nil && want != keyring.Withdrawn {
						t.Errorf("step %d: %s: got error %v, want none", n+1, name, err)
					}
				}
				before = after
			}
			if got := strings.Join(before.verifying.Algorithms(), " "); got != to {
				t.Errorf("got the algorithms %s, want %s", got, to)
			}
			if _, err := keyring.Rotate(dir, keyring.Options{Now: now.Add(time.Hour), Life: life}); err != nil { // the next key has the same algorithm
				t.Fatal(err)
			}
			if got := strings.Join(deploy(t, dir).verifying.Algorithms(), " "); got != to {
				t.Errorf("after the next rotation: got the algorithms %s, want %s", got, to)
			}
		})
	}
}

func TestEnsureMail_CreatesOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	var first string
	for range 2 {
		path, err := keyring.EnsureMail(dir)
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("got %v %v %v, want a file with the mode 0600", info, err, statErr)
		}
		if _, err := confirmation.ParseKeys(string(content)); err != nil {
			t.Error(err)
		}
		if first == "" {
			first = string(content)
		}
		if string(content) != first {
			t.Error("the second call replaced the key")
		}
	}
}
