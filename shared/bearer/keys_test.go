package bearer_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ticketing.com/auth/shared/bearer"
)

const keysURL = "http://auth/jwks"

// In these tests, the clock of synctest moves only while all goroutines wait.
func TestKeysURL_Rotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, bearer.Config{KeysURL: keysURL})
		f.wantRequests(t, "") // New sends none
		f.set(answer(jwks(t, 1)))
		first, second := issue(t, 1), issue(t, 2)
		f.want(t, first, 200)
		f.want(t, first, 200)
		f.wantRequests(t, "/jwks")

		// an unknown key: at most every 30 s
		f.want(t, second, 401)
		time.Sleep(29 * time.Second)
		f.want(t, second, 401)
		f.wantRequests(t, "")
		f.set(answer(jwks(t, 2, 1)))
		time.Sleep(time.Second)
		f.want(t, second, 200)
		f.want(t, issue(t, 3), 401)
		f.wantRequests(t, "/jwks")

		// a withdrawn key: the request that finds the set old does not wait
		f.set(answer(jwks(t, 2)))
		time.Sleep(5*time.Minute - time.Second)
		f.want(t, first, 200)
		f.wantRequests(t, "")
		time.Sleep(time.Second)
		f.want(t, first, 200)
		synctest.Wait()
		f.want(t, first, 401)
		f.want(t, second, 200)
		f.wantRequests(t, "/jwks")
		f.wantLog(t, "")
	})
}

func TestKeysURL_Outage(t *testing.T) {
	for name, down := range map[string]http.HandlerFunc{
		"a refused connection": status(refused),
		"no response":          status(hung),
		"404":                  status(404),
		"500":                  status(500),
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://auth/other", http.StatusFound)
		},
		"HTML":               answer("<html>secret</html>"),
		"no keys":            answer(`{"keys":[]}`),
		"a key of RSA alone": answer(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"secret"}]}`),
		"a private key alone": func(w http.ResponseWriter, _ *http.Request) {
			private, _ := encode(t, key(1))
			w.Write([]byte(private))
		},
		"more than 256 KiB": answer(jwks(t, 1) + strings.Repeat(" ", 256<<10)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, bearer.Config{KeysURL: keysURL})
				f.set(down)
				first, second := issue(t, 1), issue(t, 2)
				_, err := f.Verify(t.Context(), []string{"Bearer " + first})
				if statusOf(t, err) != 503 || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "auth/") {
					t.Errorf("got %v, want 503 without the response and the URL", err)
				}
				f.want(t, first, 503) // at once, without a second request
				f.wantRequests(t, "/jwks")
				time.Sleep(5 * time.Second)
				f.want(t, first, 503)
				f.wantRequests(t, "/jwks")

				f.set(answer(jwks(t, 1)))
				time.Sleep(5 * time.Second)
				f.want(t, first, 200)
				messages := f.log.taken()
				if !strings.HasPrefix(strings.ReplaceAll(messages, "a verifying key is not used; ", ""), "the verifying keys cannot be loaded; the verifying keys are loaded again") {
					t.Errorf("got the log %q, want the outage and its end once", messages)
				}

				// the keys are used for 24 hours, and at most one request waits for the URL
				f.set(down)
				f.taken()
				time.Sleep(24*time.Hour - time.Millisecond)
				start := time.Now()
				fresh := issue(t, 1)
				f.want(t, fresh, 200)
				if waited := time.Since(start); waited > 3*time.Second {
					t.Errorf("a request with a known key waited %v, want 3 s at most", waited)
				}
				f.want(t, second, 503) // the key could be a new one
				f.wantRequests(t, "/jwks")
				time.Sleep(time.Minute)
				f.want(t, fresh, 503)
				f.set(answer(jwks(t, 1)))
				time.Sleep(5 * time.Second)
				f.want(t, fresh, 200)
			})
		})
	}
}

func TestKeysURL_OneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, bearer.Config{KeysURL: keysURL})
		release := make(chan bool)
		f.set(held(release, answer(jwks(t, 1))))
		raw := issue(t, 1)
		// The client that starts the request disconnects. The others still receive the result.
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan int)
		go func() {
			_, err := f.Verify(ctx, []string{"Bearer " + raw})
			left <- statusOf(t, err)
		}()
		synctest.Wait()
		statuses := make(chan map[int]int)
		go func() { statuses <- f.count(t, 100, raw) }()
		synctest.Wait()
		cancel()
		if got := <-left; got != 503 {
			t.Errorf("the disconnected client: got %d, want 503", got)
		}
		close(release)
		if got := <-statuses; got[200] != 100 {
			t.Errorf("got the statuses %v, want 200 a hundred times", got)
		}
		f.wantRequests(t, "/jwks")
	})
}

// A later version of the auth system may publish keys of an algorithm that this version does not
// know (RFC 7517 section 5). A key that was published with its private part is not trusted.
func TestKeys_IgnoresUnusableKeys(t *testing.T) {
	private, _ := encode(t, key(2))
	set := `{"keys":[{"kty":"AKP","alg":"ML-DSA-44","pub":"x"},` + strings.TrimSuffix(strings.TrimPrefix(private, `{"keys":[`), `]}`) + `,` + strings.TrimPrefix(jwks(t, 1), `{"keys":[`)
	f := newFixture(t, bearer.Config{Keys: set})
	f.want(t, issue(t, 1), 200)
	f.want(t, issue(t, 2), 401)
	f.wantLog(t, "a verifying key is not used; a verifying key is not used")
}

func TestKeysFile_Rotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "verifying.jwks")
		write := func(text string) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(jwks(t, 1))
		f := newFixture(t, bearer.Config{KeysFile: file})
		first, second := issue(t, 1), issue(t, 2)
		f.want(t, first, 200)
		write(jwks(t, 1, 2))
		f.want(t, second, 401)
		time.Sleep(30 * time.Second)
		f.want(t, second, 200)

		write(jwks(t, 2))
		time.Sleep(5 * time.Minute)
		f.want(t, first, 200) // starts to read the file
		synctest.Wait()
		f.want(t, first, 401)

		// a file that cannot be used changes nothing, for ever
		write("")
		time.Sleep(30 * time.Second)
		f.want(t, first, 503)
		f.want(t, second, 200)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(48 * time.Hour)
		f.want(t, issue(t, 2), 200)
		synctest.Wait()
		f.wantLog(t, "the verifying keys cannot be loaded")
		f.wantRequests(t, "")
	})
}

// The URL is asked for a key that the mounted set lacks, and for no other one.
func TestKeys_MountedAndURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, bearer.Config{Keys: jwks(t, 1), KeysURL: keysURL})
		first, second := issue(t, 1), issue(t, 2)
		f.want(t, first, 200)
		f.wantRequests(t, "")
		f.want(t, second, 503)
		f.wantRequests(t, "/jwks")
		f.set(answer(jwks(t, 1, 2)))
		time.Sleep(5 * time.Second)
		f.want(t, second, 200)
		f.want(t, first, 200)
		f.wantRequests(t, "/jwks")
	})
}

// A key that was withdrawn while the service had no requests is refused, also after a load that failed.
func TestKeysURL_WithdrawnWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, bearer.Config{KeysURL: keysURL})
		f.set(answer(jwks(t, 1, 2)))
		f.want(t, issue(t, 1), 200)
		f.set(answer(jwks(t, 2)))
		time.Sleep(10 * time.Hour)
		f.want(t, issue(t, 1), 401)
		f.want(t, issue(t, 2), 200)

		f.set(status(refused))
		time.Sleep(5 * time.Minute)
		f.want(t, issue(t, 2), 200) // its load fails in the background
		synctest.Wait()
		f.set(answer(jwks(t, 3)))
		time.Sleep(10 * time.Hour)
		if got := f.count(t, 10, issue(t, 2)); got[401] != 10 {
			t.Errorf("ten concurrent requests: got %v, want ten times 401", got)
		}
	})
}
