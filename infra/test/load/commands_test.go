package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/generate/needs"
	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/httpserver"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/testing/mongotest"
)

// Each operation executes exactly the database commands that infra/docs/capacity.md lists, in its round
// trips: the longest chain of commands that wait for each other. So each command waits here until the others
// of its round trip have started, and the next round trip may start only after one of them has ended. A
// command after the response waits for the response.
func TestPage_DatabaseCommands(t *testing.T) {
	s, documented := start(t), documentedCommands(t)
	const email, password = "ann@example.com", "correct horse battery staple"
	credentials := `{"email":"` + email + `","password":"` + password + `"}`
	s.call(t, "", http.MethodPost, "/api/users/signin", "", credentials) // reads the time of the database
	var g grant
	for _, c := range []struct {
		operation, request string
		body               func() string
		status             int
	}{
		{"sign-up", "POST /api/users/signup", func() string { return credentials }, 201},
		{"sign-in", "POST /api/users/signin", func() string { return credentials }, 200},
		{"failed sign-in", "POST /api/users/signin", func() string { return `{"email":"` + email + `","password":"wrong"}` }, 401},
		{"refresh", "POST /api/users/refresh", func() string { return `{"refreshToken":"` + g.RefreshToken + `"}` }, 200},
		{"currentuser", "GET /api/users/currentuser", nil, 200},
		{"introspect", "POST /api/users/introspect", func() string { return "token=" + g.Token }, 200},
		{"revocations", "GET /api/users/revocations", nil, 200},
		{"password", "POST /api/users/password", func() string { return `{"currentPassword":"` + password + `","newPassword":"another horse battery"}` }, 200},
		{"recovery", "POST /api/users/recovery", func() string { return `{"email":"` + email + `"}` }, 202},
		{"sign-out", "POST /api/users/signout", nil, 200},
		{"jwks", "GET /.well-known/jwks.json", nil, 200},
	} {
		want, is := documented[c.operation]
		if !is {
			t.Fatalf("the page has no row for %s", c.operation)
		}
		delete(documented, c.operation)
		r, trace := s.gate.start(t, c.operation, want)
		method, path, _ := strings.Cut(c.request, " ")
		body := ""
		if c.body != nil {
			body = c.body()
		}
		status, answer := s.call(t, trace, method, path, g.Token, body)
		s.gate.finish(r)
		if status != c.status {
			t.Fatalf("%s: got %d %s, want %d (%s)", c.operation, status, answer, c.status, r.problem)
		}
		if strings.Contains(answer, "refreshToken") {
			if err := json.Unmarshal([]byte(answer), &g); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.stop() // waits for the work after the responses
	for _, r := range s.gate.runs {
		if slices.Sort(r.later); r.problem != "" || !slices.Equal(r.later, slices.Sorted(slices.Values(r.after))) {
			t.Errorf("%s: %s; after the response: got the commands %v, want %v", r.name, cmp.Or(r.problem, "before the response: as on the page"), r.later, r.after)
		}
	}
	for operation := range documented {
		t.Errorf("%s has a row on the page, and no test", operation)
	}
}

type grant struct {
	Token        string `json:"token"`
	RefreshToken string `json:"refreshToken"`
}

// An operation is a row of the table of database commands.
type operation struct {
	trips [][]string // the commands of each round trip
	after []string   // the commands after the response
}

var command = regexp.MustCompile("`([^`]+)`")

// documentedCommands returns the table of database commands. It checks the numbers in it.
func documentedCommands(t *testing.T) map[string]operation {
	t.Helper()
	page, err := os.ReadFile("../../docs/capacity.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n| operation | commands | round trips | before the response | after it |\n|---|---|---|---|---|\n")
	table, _, _ := strings.Cut(section, "\n\n")
	commands := func(text string) (all []string) {
		for _, m := range command.FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		return all
	}
	rows := map[string]operation{}
	for line := range strings.SplitSeq(table, "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 5 {
			t.Fatalf("the row %q has %d cells, want 5", line, len(cells))
		}
		row := operation{after: commands(cells[4])}
		count := len(row.after)
		for trip := range strings.SplitSeq(cells[3], "→") {
			if all := commands(trip); len(all) > 0 {
				row.trips, count = append(row.trips, all), count+len(all)
			}
		}
		if numbers := fmt.Sprintf("%d | %d", count, len(row.trips)); cells[1]+" | "+cells[2] != numbers {
			t.Errorf("%s: got the numbers %s | %s on the page, want %s", cells[0], cells[1], cells[2], numbers)
		}
		rows[cells[0]] = row
	}
	return rows
}

// A gate delays the database commands of a process so that they run in the round trips of the page. It
// implements trace.SpanProcessor, which the driver calls before it sends a command.
type gate struct {
	mu      sync.Mutex
	changed *sync.Cond
	runs    map[oteltrace.TraceID]*execution
}

// An execution is one operation. Its fields are for the holder of gate.mu.
type execution struct {
	operation
	ctx      context.Context // ends a wait that only a wrong page can cause
	name     string
	problem  string
	trip     int                      // the number of started round trips
	missing  []string                 // the commands of the last one that have not started
	ended    bool                     // one of the last one has ended
	tripOf   map[oteltrace.SpanID]int // of each command before the response
	answered bool
	later    []string // the commands after the response
	done     int      // those that have ended
}

func newGate() *gate {
	g := &gate{runs: map[oteltrace.TraceID]*execution{}}
	g.changed = sync.NewCond(&g.mu)
	return g
}

// of returns the execution of a database command, or nil. The caller must hold g.mu.
func (g *gate) of(s trace.ReadOnlySpan) *execution {
	if !slices.ContainsFunc(s.Attributes(), func(a attribute.KeyValue) bool { return a.Key == semconv.DBSystemNameKey }) {
		return nil
	}
	return g.runs[s.SpanContext().TraceID()]
}

// OnStart implements trace.SpanProcessor.
func (g *gate) OnStart(_ context.Context, s trace.ReadWriteSpan) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.of(s)
	if r == nil || r.problem != "" {
		return
	}
	defer g.changed.Broadcast()
	if len(r.missing) == 0 && r.trip == len(r.trips) {
		g.wait(r, s.Name()+" before the response", func() bool { return r.answered })
		r.later = append(r.later, s.Name())
		return
	}
	if len(r.missing) == 0 {
		if r.trip > 0 && !r.ended {
			r.problem = s.Name() + " started without waiting for a command of the round trip before it"
			return
		}
		r.missing, r.ended = slices.Clone(r.trips[r.trip]), false
		r.trip++
	}
	i := slices.Index(r.missing, s.Name())
	if i < 0 {
		r.problem = fmt.Sprintf("got the command %s, want %v", s.Name(), r.missing)
		return
	}
	r.missing = slices.Delete(r.missing, i, i+1)
	trip := r.trip
	r.tripOf[s.SpanContext().SpanID()] = trip
	g.changed.Broadcast()
	g.wait(r, fmt.Sprintf("%s without %v", s.Name(), r.missing), func() bool { return len(r.missing) == 0 || r.trip > trip })
}

// OnEnd implements trace.SpanProcessor.
func (g *gate) OnEnd(s trace.ReadOnlySpan) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.of(s); r != nil {
		if trip, before := r.tripOf[s.SpanContext().SpanID()]; !before {
			r.done++
		} else if trip == r.trip {
			r.ended = true
		}
	}
	g.changed.Broadcast()
}

// Shutdown implements trace.SpanProcessor.
func (g *gate) Shutdown(context.Context) error { return nil }

// ForceFlush implements trace.SpanProcessor.
func (g *gate) ForceFlush(context.Context) error { return nil }

// wait waits until a condition holds. The caller must hold g.mu.
func (g *gate) wait(r *execution, problem string, condition func() bool) {
	for !condition() && r.problem == "" {
		if r.ctx.Err() != nil {
			r.problem = "got " + problem
			return
		}
		g.changed.Wait()
	}
}

// start starts an operation in a new trace. It returns the value of its traceparent header.
func (g *gate) start(t *testing.T, name string, want operation) (r *execution, traceparent string) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	context.AfterFunc(ctx, g.changed.Broadcast)
	g.mu.Lock()
	defer g.mu.Unlock()
	id := oteltrace.TraceID{15: byte(len(g.runs) + 1)}
	r = &execution{operation: want, ctx: ctx, name: name, tripOf: map[oteltrace.SpanID]int{}}
	g.runs[id] = r
	return r, "00-" + id.String() + "-00f067aa0ba902b7-01"
}

// finish marks the response of an operation. It waits for the commands after it.
func (g *gate) finish(r *execution) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(r.missing) > 0 || r.trip < len(r.trips) {
		r.problem = cmp.Or(r.problem, fmt.Sprintf("got the response after %d round trips", r.trip))
	}
	r.answered = true
	g.changed.Broadcast()
	g.wait(r, "fewer commands after the response", func() bool { return r.done >= len(r.after) })
}

// A system is a process with all functions.
type system struct {
	gate *gate
	url  string
	stop func() // stops the process after the work that follows its responses
}

func start(t *testing.T) *system {
	t.Helper()
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	t.Cleanup(sink.Close)
	keys, err := keyring.Ensure(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{
		"MONGODB_URI": mongotest.URI(t), "K_SINK": sink.URL, "MAIL_KEYS": confirmation.NewKey(), "INTROSPECTION_CLIENTS": identity.OpenToAll,
		"SIGNING_KEYS_FILE": keys.Signing, "VERIFYING_KEYS_FILE": keys.Verifying,
		"HASH_MEMORY_KIB": "64", "HASH_TIME": "1", "HASH_TESTING": "on",
	}
	began := time.Now()
	// The clock does not move: a process reads the time of the database once a minute.
	cfg := config.New(func(name string) (string, bool) { s, set := settings[name]; return s, set },
		func(*slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }, func() time.Time { return began })
	s := &system{gate: newGate()}
	if err := telemetry.Provide(cfg, telemetry.Providers{
		Traces:  trace.NewTracerProvider(trace.WithSpanProcessor(s.gate), trace.WithSampler(trace.AlwaysSample())),
		Metrics: metric.NewMeterProvider(),
		Flush:   func(context.Context) {},
		Age:     func() time.Duration { return 0 },
	}); err != nil {
		t.Fatal(err)
	}
	functions := catalog.Usable(cfg)
	handler := httpserver.Handler(cfg, functions...)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err := cmp.Or(cfg.Err(), err); err != nil {
		t.Fatal(err)
	}
	if err := mongodb.Prepare(t.Context(), mongodb.FromConfig(cfg), began, cfg.Log(), needs.Collections(functions...)...); err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- httpserver.Serve(ctx, listener, handler, cfg.Log()) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		<-served
		cfg.Close(context.Background())
	})
	t.Cleanup(s.stop)
	return s
}

// call sends a request and returns the status and the body of the response.
func (s *system) call(t *testing.T, traceparent, method, path, access, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Traceparent", traceparent)
	r.Header.Set("Content-Type", "application/json")
	if strings.HasPrefix(body, "token=") {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if access != "" {
		r.Header.Set("Authorization", "Bearer "+access)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}
