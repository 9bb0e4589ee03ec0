package bench_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/crypto/argon2"

	"ticketing.com/auth/functions/currentuser"
	"ticketing.com/auth/functions/mail"
	"ticketing.com/auth/functions/recovery"
	"ticketing.com/auth/functions/signin"
	"ticketing.com/auth/functions/signup"
	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/user"
)

const credentials = `{"email":"ann@example.com","password":"correct horse battery staple"}`

// A system is a server with three functions, and mail if there is a mail server, and one user. Its other fields are for the
// baselines.
type system struct {
	url      string
	settings map[string]string
	grant    session.Grant
	tokens   *token.Verifier
	users    *mongo.Collection
	cfg      *config.Config
}

func start(b *testing.B, more ...string) system {
	b.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	signing, _ := json.Marshal(token.Set{Keys: []token.JWK{token.NewJWK(private)}})
	verifying, _ := json.Marshal(token.Set{Keys: []token.JWK{token.NewJWK(private).Public()}})
	settings := map[string]string{"MONGODB_URI": mongotest.URI(b), "SIGNING_KEYS": string(signing), "VERIFYING_KEYS": string(verifying), "RATE_LIMIT": "off"}
	cfg, url := serve(b, settings, more...)
	if err := user.FromConfig(cfg, nil).Prepare(b.Context()); err != nil {
		b.Fatal(err)
	}
	s := system{url: url, settings: settings, tokens: accesstoken.VerifierFromConfig(cfg), cfg: cfg}
	if err := json.Unmarshal(post(b, url+"/api/users/signup"), &s.grant); err != nil {
		b.Fatal(err)
	}
	client, err := mongo.Connect(options.Client().ApplyURI(settings["MONGODB_URI"]))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { client.Disconnect(context.Background()) })
	name := settings["MONGODB_URI"]
	name, _, _ = strings.Cut(name[strings.LastIndex(name, "/")+1:], "?")
	s.users = client.Database(name).Collection("users")
	return s
}

// serve serves three functions with settings, and function recovery if MAIL_KEYS is set. It adds more to
// settings.
func serve(b *testing.B, settings map[string]string, more ...string) (cfg *config.Config, url string) {
	b.Helper()
	for _, s := range more {
		name, value, _ := strings.Cut(s, "=")
		settings[name] = value
	}
	cfg = config.New(func(name string) (string, bool) { s, ok := settings[name]; return s, ok },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
	all := []endpoint.Function{signup.Function, signin.Function, currentuser.Function}
	if settings["SMTP_URL"] != "" {
		all = append(all, mail.Function)
	}
	if settings["MAIL_KEYS"] != "" {
		all = append(all, recovery.Function)
	}
	handler := httpserver.Handler(cfg, all...)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err := cmp.Or(cfg.Err(), err); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- httpserver.Serve(ctx, listener, handler, cfg.Log()) }()
	b.Cleanup(func() {
		stop()
		<-served
		cfg.Close(context.Background())
	})
	return cfg, "http://" + listener.Addr().String()
}

// BenchmarkCurrentuser compares the function with handlers that do only a part of its work,
// over the same loopback.
func BenchmarkCurrentuser(b *testing.B) {
	s := start(b)
	claims, err := s.tokens.Verify(context.Background(), s.grant.Token)
	if err != nil {
		b.Fatal(err)
	}
	find := func(ctx context.Context) (u user.User, err error) {
		err = s.users.FindOne(ctx, bson.D{{Key: "_id", Value: claims.Subject}},
			options.FindOne().SetProjection(bson.D{{Key: "email", Value: 1}})).Decode(&u)
		return u, err
	}
	baseline := func(work func(context.Context, string) error) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := work(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")); err != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
			fmt.Fprintf(w, `{"currentUser":{"id":%q,"email":%q}}`, claims.Subject, claims.Email)
		}))
		b.Cleanup(server.Close)
		return server.URL
	}
	for _, c := range []struct{ name, url string }{
		{"bare", baseline(func(context.Context, string) error { return nil })},
		{"bare+find", baseline(func(ctx context.Context, _ string) error { _, err := find(ctx); return err })},
		{"bare+verify+find", baseline(func(ctx context.Context, access string) error {
			if _, err := s.tokens.Verify(context.Background(), access); err != nil {
				return err
			}
			_, err := find(ctx)
			return err
		})},
		{"currentuser", s.url + "/api/users/currentuser"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, c.url, nil)
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+s.grant.Token)
				read(b, r)
			}
		})
	}
}

// BenchmarkSignin compares a sign-in with its most expensive step, the password hash.
func BenchmarkSignin(b *testing.B) {
	s := start(b)
	b.Run("hash", func(b *testing.B) {
		for b.Loop() {
			argon2.IDKey([]byte("correct horse battery staple"), make([]byte, 16), 2, 19456, 1, 32)
		}
	})
	b.Run("signin", func(b *testing.B) {
		for b.Loop() {
			post(b, s.url+"/api/users/signin")
		}
	})
	// one per core at a time: the throughput of the machine
	b.Run("hash, all cores", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				argon2.IDKey([]byte("correct horse battery staple"), make([]byte, 16), 2, 19456, 1, 32)
			}
		})
	})
	b.Run("hash+find+update, all cores", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				email := bson.D{{Key: "email", Value: "ann@example.com"}}
				var a user.Account
				if err := s.users.FindOne(b.Context(), email).Decode(&a); err != nil {
					b.Error(err)
				}
				argon2.IDKey([]byte("correct horse battery staple"), make([]byte, 16), 2, 19456, 1, 32)
				if _, err := s.users.UpdateOne(b.Context(), email, bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}}); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("signin, all cores", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				post(b, s.url+"/api/users/signin")
			}
		})
	})
}

// BenchmarkRateLimit compares sign-ins with and without the rate limiter. It alternates them,
// so that both run under the same load; on/off is the median of the ratios. Each sign-in has
// an address of its own, like sign-ins of many clients.
//
// The database is the embedded one unless MONGODB_URI names another. It executes one command
// at a time. So the commands of the limiter add up here, and elsewhere run in parallel with
// the hash and with the write of the session.
func BenchmarkRateLimit(b *testing.B) {
	off, on := start(b, "TRUSTED_PROXIES=1"), start(b, "TRUSTED_PROXIES=1", "RATE_LIMIT=on")
	n := 0
	timed := func(s system) time.Duration {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.url+"/api/users/signin", strings.NewReader(credentials))
		if err != nil {
			b.Fatal(err)
		}
		n++
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255))
		began := time.Now()
		read(b, r)
		return time.Since(began)
	}
	var ratios []float64
	for b.Loop() {
		without := timed(off)
		ratios = append(ratios, float64(timed(on))/float64(without))
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "on/off")
}

// BenchmarkSink compares sign-ins with a sink that takes 1.4 s with sign-ins without a sink; slow/none is
// the ratio of the medians. Each sign-in is one of another user, so that no session ends at the limit.
func BenchmarkSink(b *testing.B) {
	var delivered atomic.Int32
	sink := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		time.Sleep(1400 * time.Millisecond)
		delivered.Add(1)
	}))
	b.Cleanup(sink.Close)
	none, slow := start(b), start(b, "K_SINK="+sink.URL)
	const users = 20
	none.populate(b, users)
	slow.populate(b, users)
	delivered.Store(0)
	times := alternate(b, [2]system{none, slow}, func(s system, n int) *http.Request { return s.signin(b, n%users) })
	reportTimes(b, 50, times, "slow")
	b.ReportMetric(float64(delivered.Load())/float64(b.N), "delivered/op")
}

// alternate sends requests to two systems in turns, so that both run under the same load. It returns the
// times of their responses.
func alternate(b *testing.B, pair [2]system, request func(s system, n int) *http.Request) (times [2][]time.Duration) {
	for n := 0; b.Loop(); n++ {
		for k := range 2 {
			i := (n + k) % 2 // the first and the second request of a pair may differ
			r := request(pair[i], n)
			began := time.Now()
			read(b, r)
			times[i] = append(times[i], time.Since(began))
		}
	}
	return times
}

// signin returns a sign-in of a user that populate has added.
func (s system) signin(b *testing.B, n int) *http.Request {
	return jsonRequest(b, s.url+"/api/users/signin", fmt.Sprintf(`{"email":"u%d@example.com","password":"correct horse battery staple"}`, n))
}

func jsonRequest(b *testing.B, url, body string) *http.Request {
	r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return r
}

// BenchmarkTelemetry compares a system that exports the spans of all requests, or of a tenth of them, with
// one that exports nothing. The collector runs on the same cores.
func BenchmarkTelemetry(b *testing.B) {
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	b.Cleanup(collector.Close)
	endpoint := "OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL
	none := start(b)
	const users = 20
	none.populate(b, users)
	all := start(b, endpoint)
	b.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio") // the SDK reads it at the start
	b.Setenv("OTEL_TRACES_SAMPLER_ARG", "0.1")
	for with, exports := range map[string]system{"exports": all, "exports-tenth": start(b, endpoint)} {
		exports.populate(b, users)
		for name, request := range map[string]func(s system, n int) *http.Request{
			"signin": func(s system, n int) *http.Request { return s.signin(b, n%users) },
			"currentuser": func(s system, _ int) *http.Request {
				r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, s.url+"/api/users/currentuser", nil)
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+s.grant.Token)
				return r
			},
		} {
			b.Run(name+"/"+with, func(b *testing.B) {
				reportTimes(b, 50, alternate(b, [2]system{none, exports}, request), with)
			})
		}
	}
}

// reportTimes reports a percentile of the times without and with something, and their ratio.
func reportTimes(b *testing.B, percentile int, times [2][]time.Duration, with string) {
	var ms [2]float64
	for i, t := range times {
		slices.Sort(t)
		ms[i] = float64(t[min(len(t)*percentile/100, len(t)-1)].Microseconds()) / 1e3
	}
	b.ReportMetric(ms[0], fmt.Sprintf("ms-p%d-none", percentile))
	b.ReportMetric(ms[1], fmt.Sprintf("ms-p%d-%s", percentile, with))
	b.ReportMetric(ms[1]/ms[0], fmt.Sprintf("p%d-%s/none", percentile, with))
}

// BenchmarkMail compares sign-ups with a mail server that accepts connections and never answers with
// sign-ups without mail.
func BenchmarkMail(b *testing.B) {
	hanging, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { hanging.Close() })
	none := start(b)
	hangs := start(b, "SMTP_URL=smtp://"+hanging.Addr().String()+"?tls=none", "MAIL_KEYS="+confirmation.NewKey(), "MAIL_FROM=no-reply@ticketing.example", "PUBLIC_URL=https://ticketing.example")
	times := alternate(b, [2]system{none, hangs}, func(s system, n int) *http.Request {
		return jsonRequest(b, s.url+"/api/users/signup", fmt.Sprintf(`{"email":"new%d@example.com","password":"correct horse battery staple"}`, n))
	})
	reportTimes(b, 50, times, "hangs")
	reportTimes(b, 99, times, "hangs")
}

// BenchmarkUsers measures the embedded database with an increasing number of users. It requests
// current users of random sessions, and sign-ins of random users, each from an address of its
// own. The rates are those of the local runner with its client on the same cores. Set
// MONGODB_URI to measure MongoDB.
func BenchmarkUsers(b *testing.B) {
	for _, n := range []int{100, 600, 1000} {
		s := start(b, "TRUSTED_PROXIES=1", "RATE_LIMIT=on")
		grants := s.populate(b, n)
		var address atomic.Int32
		b.Run(fmt.Sprintf("currentuser, %d users", n), func(b *testing.B) {
			s.rate(b, func() (*http.Request, error) {
				r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, s.url+"/api/users/currentuser", nil)
				if err == nil {
					r.Header.Set("Authorization", "Bearer "+grants[mathrand.IntN(n)].Token)
				}
				return r, err
			})
		})
		b.Run(fmt.Sprintf("signin, %d users", n), func(b *testing.B) {
			s.rate(b, func() (*http.Request, error) {
				body := strings.NewReader(`{"email":"` + grants[mathrand.IntN(n)].User.Email + `","password":"correct horse battery staple"}`)
				r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.url+"/api/users/signin", body)
				if err == nil {
					a := address.Add(1)
					r.Header.Set("Content-Type", "application/json")
					r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", a>>16&255, a>>8&255, a&255))
				}
				return r, err
			})
		})
	}
}

// populate adds users, each with a session.
func (s system) populate(b *testing.B, n int) (grants []session.Grant) {
	b.Helper()
	hash, err := password.FromConfig(s.cfg).Hash(b.Context(), "correct horse battery staple")
	if err != nil {
		b.Fatal(err)
	}
	store, granter := user.FromConfig(s.cfg, nil), session.FromConfig(s.cfg)
	for i := range n {
		u := user.User{ID: session.NewID(), Email: fmt.Sprintf("u%d@example.com", i)}
		first, refresh := session.Open(u.ID, time.Now(), granter.TTL())
		if err := store.Create(b.Context(), user.Registration{User: u, Password: hash, First: &first}); err != nil {
			b.Fatal(err)
		}
		grant, err := granter.Grant(user.Profile{User: u}, first, refresh, first.CreatedAt)
		if err != nil {
			b.Fatal(err)
		}
		grants = append(grants, grant)
	}
	return grants
}

// rate sends requests, four at a time, and reports the responses per second.
func (s system) rate(b *testing.B, next func() (*http.Request, error)) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	b.SetParallelism(max(1, 4/runtime.GOMAXPROCS(0)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := next()
			if err != nil {
				b.Error(err)
				return
			}
			response, err := client.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if response.StatusCode != http.StatusOK {
				b.Errorf("got status %d, want 200", response.StatusCode)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

// BenchmarkValidate decodes and validates a sign-up.
func BenchmarkValidate(b *testing.B) {
	cfg := config.New(func(string) (string, bool) { return "", false }, func(*slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }, time.Now)
	validate := endpoint.Define(endpoint.Spec{Method: http.MethodPost, Path: "/validate", Access: endpoint.Public, Success: http.StatusNoContent},
		func(*config.Config) struct{} { return struct{}{} },
		func(struct{}, context.Context, signup.Input) (endpoint.None, error) { return endpoint.None{}, nil }).Bind(cfg, "validate")
	decode := func() {
		r := endpoint.Request{ContentType: []string{"application/json"}, Length: int64(len(credentials)), Body: strings.NewReader(credentials)}
		if got := validate.Invoke(b.Context(), &r); got.Status != http.StatusNoContent {
			b.Fatalf("got %d %s", got.Status, got.Body)
		}
	}
	decode() // the first call reads the password blocklist
	b.ReportAllocs()
	for b.Loop() {
		decode()
	}
}

// BenchmarkStart measures the time from exec to the first response, its CPU time, and the
// resident memory after it. For currentuser it also measures a response that needs the
// database, as the first request after a scale to zero does.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	commands := map[string]string{"bare": "ticketing.com/auth/infra/test/bench/bare"}
	names := []string{"bare"}
	for _, f := range catalog.Functions() {
		commands[f.Name] = fmt.Sprintf("ticketing.com/auth/functions/%s/cmd/%s", f.Name, f.Name)
		names = append(names, f.Name)
	}
	args := []string{"build", "-buildvcs=false", "-trimpath", "-tags=lambda.norpc", "-ldflags=-s -w", "-o", dir + string(filepath.Separator)}
	for _, n := range names {
		args = append(args, commands[n])
	}
	build := exec.Command("go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	files, err := keyring.Ensure(b.TempDir(), time.Now())
	if err != nil {
		b.Fatal(err)
	}
	env := []string{"PORT=0", "EVENTS=on", "K_SINK=http://127.0.0.1:1", "MONGODB_URI=mongodb://127.0.0.1:1", "SIGNING_KEYS_FILE=" + files.Signing, "VERIFYING_KEYS_FILE=" + files.Verifying, "INTROSPECTION_CLIENTS=" + identity.OpenToAll}
	measure := func(b *testing.B, name string, env []string, path, access string) {
		binary := filepath.Join(dir, name)
		info, err := os.Stat(binary)
		if err != nil {
			b.Fatal(err)
		}
		var resident int
		var computed time.Duration
		for b.Loop() {
			var cpu time.Duration
			resident, cpu = firstResponse(b, binary, env, path, access)
			computed += cpu
		}
		b.ReportMetric(float64(info.Size())/1e6, "MB-binary")
		b.ReportMetric(float64(resident)/1e3, "MB-resident")
		b.ReportMetric(float64(computed.Microseconds())/1e3/float64(b.N), "ms-computed")
	}
	for _, name := range names {
		b.Run(name, func(b *testing.B) { measure(b, name, env, "/health/readiness", "") })
	}
	s := start(b)
	settings := []string{"PORT=0", "MONGODB_URI=" + s.settings["MONGODB_URI"], "VERIFYING_KEYS=" + s.settings["VERIFYING_KEYS"]}
	b.Run("currentuser, with its find", func(b *testing.B) {
		measure(b, "currentuser", settings, "/api/users/currentuser", s.grant.Token)
	})
}

// BenchmarkCold measures the first request of a process, which has no open connections to the
// database yet. The database is close, and then distant. One of the connections is for the
// driver's heartbeat.
func BenchmarkCold(b *testing.B) {
	s := start(b, "RATE_LIMIT=on", "SESSION_LIMIT=1000") // the first session is not evicted
	for _, roundTrip := range []time.Duration{0, 50 * time.Millisecond} {
		for _, c := range []struct {
			name string
			send func(b *testing.B, url string)
		}{
			{"currentuser", func(b *testing.B, url string) {
				r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url+"/api/users/currentuser", nil)
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+s.grant.Token)
				read(b, r)
			}},
			{"signin", func(b *testing.B, url string) { post(b, url+"/api/users/signin") }},
		} {
			b.Run(fmt.Sprintf("%s, round trip %v", c.name, roundTrip), func(b *testing.B) {
				connections := 0
				for b.Loop() {
					b.StopTimer()
					tap := mongotest.TapOf(b, s.settings["MONGODB_URI"])
					tap.RoundTrip(roundTrip)
					_, url := serve(b, maps.Clone(s.settings), "MONGODB_URI="+tap.URI)
					b.StartTimer()
					c.send(b, url)
					b.StopTimer()
					connections += tap.Accepted()
					b.StartTimer()
				}
				b.ReportMetric(float64(connections)/float64(b.N), "connections")
			})
		}
	}
}

var port = regexp.MustCompile(`"port":(\d+)`)

// firstResponse starts a process and waits for its first response. It returns the resident
// memory in kB and the CPU time.
func firstResponse(b *testing.B, binary string, env []string, path, access string) (kB int, cpu time.Duration) {
	cmd := exec.Command(binary)
	cmd.Env = env
	stderr, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	m := port.FindStringSubmatch(line)
	if m == nil {
		b.Fatalf("%s: got the first line %q (%v), want the port", binary, line, err)
	}
	r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+m[1]+path, nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+access)
	r.Close = true
	read(b, r)
	b.StopTimer()
	defer b.StartTimer()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err == nil { // Linux only
		_, after, _ := strings.Cut(string(status), "VmRSS:")
		kB, _ = strconv.Atoi(strings.Fields(after)[0])
	}
	cmd.Process.Kill()
	cmd.Wait()
	return kB, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

func post(b *testing.B, url string) []byte {
	r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, strings.NewReader(credentials))
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return read(b, r)
}

func read(b *testing.B, r *http.Request) []byte {
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= 300 {
		b.Fatalf("%s: got %d %s %v, want success", r.URL.Path, response.StatusCode, body, err)
	}
	return body
}
