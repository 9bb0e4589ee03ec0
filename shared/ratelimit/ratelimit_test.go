package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/testing/mongotest"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

var signin, _ = Default("signin")

func at(moment time.Time) func() time.Time { return func() time.Time { return moment } }

func from(address string) endpoint.Client { return endpoint.Client{Peer: address} }

func newConfig(t *testing.T, now func() time.Time, settings ...string) *config.Config {
	environment := map[string]string{}
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		environment[name] = value
	}
	cfg := config.New(func(name string) (string, bool) { v, ok := environment[name]; return v, ok },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, now)
	t.Cleanup(func() { cfg.Close(context.Background()) })
	return cfg
}

// limiter returns the limiter of a process with its own connection.
func limiter(t *testing.T, uri string, now func() time.Time, settings ...string) *Limiter {
	t.Helper()
	cfg := newConfig(t, now, append(settings, "MONGODB_URI="+uri)...)
	l := FromConfig(cfg)
	if err := cfg.Err(); err != nil {
		t.Fatal(err)
	}
	l.SetClock(now)
	l.timeout = time.Minute // on a busy machine, a command may take longer than addressTimeout
	return l
}

// skewed returns the limiter of a process with a wrong clock.
func skewed(t *testing.T, uri string, now func() time.Time, by time.Duration) *Limiter {
	t.Helper()
	l := limiter(t, uri, func() time.Time { return now().Add(by) })
	l.SetClock(now)
	return l
}

// begin begins an attempt and waits for its reservation.
func begin(ctx context.Context, l *Limiter, limit Limit, c endpoint.Client, email string, known bool) (*Attempt, error) {
	a, err := l.Begin(ctx, limit, c, email)
	if err == nil {
		err = a.Allow(ctx, known)
	}
	return a, err
}

// try makes an attempt from a client and settles it, unless it was rejected.
func try(t *testing.T, l *Limiter, c endpoint.Client, known bool, settle func(*Attempt, context.Context)) error {
	t.Helper()
	a, err := begin(t.Context(), l, signin, c, "ann@example.com", known)
	if a != nil {
		defer a.Close(t.Context())
	}
	if err == nil {
		settle(a, t.Context())
	}
	return err
}

// parallel calls f n times at the same time and returns how many calls succeeded. All others
// must fail with TooMany.
func parallel(t *testing.T, n int, f func(i int) error) int {
	t.Helper()
	var passed atomic.Int64
	var start, group sync.WaitGroup
	start.Add(1)
	for i := range n {
		group.Go(func() {
			start.Wait()
			if err := f(i); err == nil {
				passed.Add(1)
			} else if !tooMany(err) {
				t.Error(err)
			}
		})
	}
	start.Done()
	group.Wait()
	return int(passed.Load())
}

func tooMany(err error) bool { return err != nil && apierror.From(err).Kind() == apierror.TooMany }

// headers returns the headers of a rejection.
func headers(err error) string {
	if err == nil {
		return "none: the request was not rejected"
	}
	return fmt.Sprint(apierror.From(err).Headers())
}

func retryAfter(seconds int) string { return fmt.Sprintf("{Retry-After %d}", seconds) }

// collection returns the collection of the counters of a limiter.
func collection(t *testing.T, l *Limiter) *mongo.Collection {
	t.Helper()
	c, err := l.collection(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// find decodes all counters into a slice.
func find(t *testing.T, l *Limiter, slice any) {
	t.Helper()
	cursor, err := collection(t, l).Find(t.Context(), bson.D{})
	if err == nil {
		err = cursor.All(t.Context(), slice)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// stored returns the n and pending of all counters, by the kind of counter.
func stored(t *testing.T, l *Limiter) map[string][2]int {
	t.Helper()
	var all []struct {
		ID         string `bson:"_id"`
		N, Pending int
	}
	find(t, l, &all)
	sums := map[string][2]int{}
	for _, c := range all {
		kind, _, _ := strings.Cut(c.ID, ":")
		sums[kind] = [2]int{sums[kind][0] + c.N, sums[kind][1] + c.Pending}
	}
	return sums
}

func TestLimits_Settings(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*config.Config) Limit{"signup": Signup, "signin": Signin, "refresh": Refresh, "session": Session} {
		if want, is := Default(name); !is || limit(newConfig(t, time.Now)) != want {
			t.Errorf("%s: got %v, want %v", name, limit(newConfig(t, time.Now)), want)
		}
		if want := (Limit{name, 77, time.Hour}); limit(newConfig(t, time.Now, "RATE_LIMIT_"+strings.ToUpper(name)+"=77/1h")) != want {
			t.Errorf("%s: the setting does not give %v", name, want)
		}
	}
	for text, want := range map[string]Limit{
		"":            {"signin", 1000, 5 * time.Minute},
		"2000/10m":    {"signin", 2000, 10 * time.Minute},
		"10/1s":       {"signin", 10, time.Second},
		"500/1h":      {"signin", 500, time.Hour},
		"500/1m30s":   {"signin", 500, 90 * time.Second},
		"1000000/24h": {"signin", 1000000, 24 * time.Hour},
	} {
		cfg := newConfig(t, time.Now, "RATE_LIMIT_SIGNIN="+text)
		if got := Signin(cfg); got != want || cfg.Err() != nil {
			t.Errorf("%q: got %v, %v; want %v", text, got, cfg.Err(), want)
		}
	}
	for _, text := range []string{"1000", "1000/", "/5m", "1000/5", "0/5m", "9/5m", "-10/5m", "1000/0s", "1000/500ms", "1000/1500ms", "1000/25h", "1000/-5m",
		"1e3/5m", "1,000/5m", "1000 / 5m", "1000/5 m", "1000/5m/1", "01000/5m", "1000001/5m", "99999999999999999999/5m", "+1000/5m", "1000/+5m", "1000/5M", "off"} {
		cfg := newConfig(t, time.Now, "RATE_LIMIT_SIGNIN="+text)
		Signin(cfg)
		want := "RATE_LIMIT_SIGNIN must be a number of requests and a window, such as 1000/5m: 10 to 1000000 requests, 1s to 24h in whole seconds"
		if err := cfg.Err(); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	for setting, ok := range map[string]bool{
		"RATE_LIMIT=on": true, "RATE_LIMIT=accounts": true, "RATE_LIMIT=off": true, "RATE_LIMIT=yes": false,
		"THROTTLE=on": false, "THROTTLE=": true,
		"PROXY_NETWORKS=10.0.0.0/8, fd00::/8": true, "PROXY_NETWORKS=10.0.0.1": false, "PROXY_NETWORKS=10.0.0.1/8": false, "PROXY_NETWORKS=::ffff:10.0.0.0/104": false,
	} {
		cfg := newConfig(t, time.Now, setting, "MONGODB_URI=mongodb://127.0.0.1:1/")
		FromConfig(cfg)
		if (cfg.Err() == nil) != ok {
			t.Errorf("%s: got %v, accepted want %v", setting, cfg.Err(), ok)
		}
	}
}

func TestAccount_Waits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		s     state
		since time.Duration // the last attempt
		after time.Duration
		reset bool
	}{
		{"nine failures", state{N: 9}, 0, 0, false},
		{"ten failures", state{N: 10}, 0, time.Second, false},
		{"just before the end of the wait", state{N: 10}, 999 * time.Millisecond, time.Millisecond, false},
		{"the end of the wait", state{N: 10}, time.Second, 0, false},
		{"eleven failures", state{N: 11}, 0, 2 * time.Second, false},
		{"fifteen failures", state{N: 15}, 2 * time.Second, 30 * time.Second, false},
		{"the longest wait", state{N: 20}, 0, 15 * time.Minute, false},
		{"very many failures", state{N: 1 << 30}, 0, 15 * time.Minute, false},
		{"a day after the wait", state{N: 20}, 15*time.Minute + 24*time.Hour, 0, true},
		{"less than a day after the wait", state{N: 20}, 15*time.Minute + 24*time.Hour - time.Millisecond, 0, false},
		{"ten in flight", state{N: 10, Pending: 10}, 0, time.Second, false},
		{"one in flight after nine failures", state{N: 10, Pending: 1}, 500 * time.Millisecond, time.Second, false},
		{"one in flight after ten failures", state{N: 11, Pending: 1}, 0, 2 * time.Second, false},
		{"fourteen in flight of a killed process", state{N: 14, Pending: 14}, 9 * time.Second, 7 * time.Second, false},
		{"a database clock that was an hour ahead", state{N: 20}, -time.Hour, 0, false},
		{"a database clock that was a minute ahead", state{N: 20}, -time.Minute, 16 * time.Minute, false},
	} {
		c.s.At = noon
		if after, reset := c.s.decide(noon.Add(c.since)); after != c.after || reset != c.reset {
			t.Errorf("%s: wait %s, reset %v; want %s, %v", c.name, after, reset, c.after, c.reset)
		}
	}
}

// Two processes race for an account. Their attempts are in flight, then fail.
func TestAccount_ParallelAttempts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("makes many attempts at the same time")
	}
	for name, c := range map[string]struct {
		device string
		n      int
	}{"account": {"", 200}, "device": {"AAAAAAAAAAAAAAAAAAAAAA", 40}} {
		t.Run(name, func(t *testing.T) {
			uri, moment := mongotest.SlowURI(t), noon
			now := func() time.Time { return moment }
			limiters := []*Limiter{limiter(t, uri, now, "RATE_LIMIT=accounts"), limiter(t, uri, now, "RATE_LIMIT=accounts")}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // for a busy machine
			defer cancel()
			var mu sync.Mutex
			var begun []*Attempt
			attempt := func(i int) error {
				a, err := begin(ctx, limiters[i%2], signin, endpoint.Client{Device: c.device}, "ann@example.com", c.device != "")
				mu.Lock()
				defer mu.Unlock()
				begun = append(begun, a)
				return err
			}
			for _, round := range []struct {
				after time.Duration
				n     int
				want  int
			}{{0, c.n, 10}, {time.Second, 20, 1}, {3 * time.Second, 20, 1}, {7 * time.Second, 20, 1}, {25 * time.Hour, 20, 10}} {
				moment = noon.Add(round.after)
				if n := parallel(t, round.n, attempt); n != round.want {
					t.Errorf("after %s: %d of %d attempts passed, want %d", round.after, n, round.n, round.want)
				}
				for _, a := range begun {
					a.Fail(ctx)
					a.Close(ctx)
				}
				begun = nil
			}
		})
	}
}

func TestAccount_InFlight(t *testing.T) {
	t.Parallel()
	l := limiter(t, mongotest.URI(t), at(noon))
	var begun []*Attempt
	for range freeFailures {
		a, err := begin(t.Context(), l, signin, from("192.0.2.1:1"), "ann@example.com", false)
		if err != nil {
			t.Fatal(err)
		}
		begun = append(begun, a)
	}
	err := try(t, l, from("192.0.2.1:1"), false, nil)
	if want := `[{Retry-After 1} {RateLimit-Policy "account";q=10;w=900} {RateLimit "account";r=0;t=1}]`; headers(err) != want {
		t.Errorf("with ten in flight: got %s, want %s", headers(err), want)
	}
	for _, a := range begun {
		a.Succeed(t.Context())
		a.Close(t.Context())
	}
	if err := try(t, l, from("192.0.2.1:1"), false, (*Attempt).Succeed); err != nil {
		t.Errorf("after their success: %v", err)
	}
	if got := stored(t, l); got["account"] != [2]int{0, 0} || got["signin"] != [2]int{12, 0} {
		t.Errorf("stored %v, want account [0 0] and signin [12 0]", got)
	}
}

func TestAttempt_Settled(t *testing.T) {
	t.Parallel()
	device := endpoint.Client{Peer: "192.0.2.1:1", Device: "AAAAAAAAAAAAAAAAAAAAAA"}
	for _, c := range []struct {
		name   string
		client endpoint.Client
		known  bool
		settle func(*Attempt, context.Context)
		want   map[string][2]int
	}{
		{"failure", from("192.0.2.1:1"), false, (*Attempt).Fail, map[string][2]int{"signin": {10, 0}, "account": {1, 0}}},
		{"failure of a device", device, true, (*Attempt).Fail, map[string][2]int{"signin": {10, 0}, "device": {1, 0}}},
		{"failure of an unknown device", device, false, (*Attempt).Fail, map[string][2]int{"signin": {10, 0}, "device": {0, 0}, "account": {1, 0}}},
		{"success", from("192.0.2.1:1"), false, (*Attempt).Succeed, map[string][2]int{"signin": {1, 0}, "account": {0, 0}}},
		{"success of an unknown device", device, false, (*Attempt).Succeed, map[string][2]int{"signin": {1, 0}, "device": {0, 0}, "account": {0, 0}}},
		{"not checked", from("192.0.2.1:1"), false, func(*Attempt, context.Context) {}, map[string][2]int{"signin": {1, 0}, "account": {0, 0}}},
		{"IPv6 failure", from("[2001:db8::1]:1"), false, (*Attempt).Fail, map[string][2]int{"signin": {20, 0}, "account": {1, 0}}},
		{"IPv6 success", from("[2001:db8::1]:1"), false, (*Attempt).Succeed, map[string][2]int{"signin": {2, 0}, "account": {0, 0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := limiter(t, mongotest.URI(t), at(noon))
			if err := try(t, l, c.client, c.known, c.settle); err != nil {
				t.Fatal(err)
			}
			if got := stored(t, l); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("stored %v, want %v", got, c.want)
			}
		})
	}
}

func TestAttempt_ClientDisconnects(t *testing.T) {
	t.Parallel()
	unknown := endpoint.Client{Peer: "192.0.2.1:1", Device: "AAAAAAAAAAAAAAAAAAAAAA"}
	for name, early := range map[string]bool{"before the reservation": true, "after the reservation": false} {
		t.Run(name, func(t *testing.T) {
			l := limiter(t, mongotest.URI(t), at(noon))
			ctx, disconnect := context.WithCancel(t.Context())
			defer disconnect()
			if early {
				disconnect()
			}
			a, err := begin(ctx, l, signin, unknown, "ann@example.com", false)
			if err != nil {
				t.Fatal(err)
			}
			disconnect()
			a.Close(ctx)
			want := map[string][2]int{"signin": {1, 0}, "account": {0, 0}, "device": {0, 0}}
			if got := stored(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("stored %v, want %v", got, want)
			}
		})
	}
}

// The database counts an attempt, and its reply is lost. The process cannot settle the attempt.
func TestAttempt_LostReply(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*testing.T, *mongotest.Tap, *Limiter){
		"of the reservation": func(t *testing.T, tap *mongotest.Tap, l *Limiter) {
			l.Allow(t.Context(), signin, from("192.0.2.1:1")) // opens the connection and reads the clock
			tap.Mute()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second) // too short for a second attempt of the driver
			defer cancel()
			a, _ := begin(ctx, l, signin, from("192.0.2.1:1"), "ann@example.com", false)
			a.Close(ctx)
		},
		"of the settlement": func(t *testing.T, tap *mongotest.Tap, l *Limiter) {
			a, err := begin(t.Context(), l, signin, from("192.0.2.1:1"), "ann@example.com", false)
			if err != nil {
				t.Fatal(err)
			}
			tap.Stall("ratelimits")
			defer tap.Stall("")
			l.timeout = 100 * time.Millisecond
			a.Close(t.Context())
		},
	} {
		t.Run(name, func(t *testing.T) {
			uri, moment := mongotest.URI(t), noon
			tap, l := mongotest.TapOf(t, uri), limiter(t, uri, func() time.Time { return moment })
			if err := try(t, l, from("192.0.2.1:1"), false, (*Attempt).Fail); err != nil {
				t.Fatal(err)
			}
			for n := 0; stored(t, l)["account"][1] == 0; n++ { // on a busy machine, the command may not be sent in time
				if n == 20 {
					t.Fatal("no attempt is in flight after 20 lost replies")
				}
				lose(t, tap, limiter(t, tap.URI, at(noon)))
			}
			moment = noon.Add(maxInFlight)
			if err := try(t, l, from("192.0.2.1:1"), false, (*Attempt).Succeed); err != nil {
				t.Fatal(err)
			}
			if got := stored(t, l)["account"]; got != [2]int{0, 0} {
				t.Errorf("after a success: stored %v, want [0 0]", got)
			}
		})
	}
}

// Ten attempts of a killed process are no longer in flight after maxInFlight. A client then
// receives the wait of the account.
func TestAttempt_KilledProcess(t *testing.T) {
	t.Parallel()
	moment := noon
	l := limiter(t, mongotest.URI(t), func() time.Time { return moment })
	for range freeFailures {
		if _, err := begin(t.Context(), l, signin, from("192.0.2.1:1"), "ann@example.com", false); err != nil {
			t.Fatal(err)
		}
	}
	moment = noon.Add(maxInFlight)
	if err := try(t, l, from("192.0.2.2:1"), false, (*Attempt).Fail); err != nil {
		t.Fatal(err)
	}
	if err := try(t, l, from("192.0.2.2:1"), false, nil); !strings.Contains(headers(err), retryAfter(2)) {
		t.Errorf("got %s, want %s", headers(err), retryAfter(2))
	}
	moment = moment.Add(2 * time.Second)
	if err := try(t, l, from("192.0.2.2:1"), false, (*Attempt).Succeed); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, l)["account"]; got != [2]int{0, 0} {
		t.Errorf("after a success: stored %v, want [0 0]", got)
	}
}

// Each round of the reservation admits one counter after its wait.
func TestReserve_LastRoundPasses(t *testing.T) {
	t.Parallel()
	l := limiter(t, mongotest.URI(t), at(noon))
	c := collection(t, l)
	var all []counter
	for i := range rounds {
		all = append(all, account(fmt.Sprint("user", i)))
		if _, err := c.InsertOne(t.Context(), bson.D{{Key: "_id", Value: all[i].id}, {Key: "n", Value: freeFailures}, {Key: "pending", Value: 0}, {Key: "at", Value: noon.Add(-time.Minute)}}); err != nil {
			t.Fatal(err)
		}
	}
	counted, err := l.reserve(t.Context(), func() []counter { return all })
	if err != nil || len(counted) != rounds {
		t.Errorf("got %d counters and %v, want %d and no error", len(counted), err, rounds)
	}
	if got, want := stored(t, l)["account"], [2]int{rounds * (freeFailures + 1), rounds}; got != want {
		t.Errorf("stored %v, want %v", got, want)
	}
}

// The database fails at one of the updates of a reservation: of the address, of the expired
// attempts of the account, or of the account.
func TestReserve_ReturnsCountersBeforeAnError(t *testing.T) {
	t.Parallel()
	for index, want := range []int{0, 1, 1} {
		tap := mongotest.NewTap(t)
		l := limiter(t, tap.URI, at(noon))
		tap.Reply("update ratelimits", bson.D{{Key: "ok", Value: 1}, {Key: "n", Value: index},
			{Key: "writeErrors", Value: bson.A{bson.D{{Key: "index", Value: index}, {Key: "code", Value: 8}, {Key: "errmsg", Value: "test"}}}}})
		counted, err := l.reserve(t.Context(), func() []counter {
			return append(l.addressCounters(signin, from("192.0.2.1:1"), failureWeight), account("ann@example.com"))
		})
		if len(counted) != want || err == nil || tooMany(err) {
			t.Errorf("update %d fails: got %d counters and %v, want %d and an error of the database", index, len(counted), err, want)
		}
	}
}

// An attacker makes up a device token for each attempt.
func TestAttempt_CounterOfUnknownDeviceExpires(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		known  bool
		settle func(*Attempt, context.Context)
		want   time.Duration
	}{
		"an unknown device that fails":    {false, (*Attempt).Fail, unknownTTL},
		"an unknown device that succeeds": {false, (*Attempt).Succeed, unknownTTL},
		"an attempt that is not checked":  {false, func(*Attempt, context.Context) {}, unknownTTL},
		"a known device":                  {true, (*Attempt).Fail, resetAfter + expiryMargin},
	} {
		t.Run(name, func(t *testing.T) {
			l := limiter(t, mongotest.URI(t), at(noon))
			if err := try(t, l, endpoint.Client{Peer: "192.0.2.1:1", Device: "AAAAAAAAAAAAAAAAAAAAAA"}, c.known, c.settle); err != nil {
				t.Fatal(err)
			}
			var device struct {
				ExpiresAt time.Time `bson:"expiresAt"`
			}
			if err := collection(t, l).FindOne(t.Context(), bson.D{{Key: "_id", Value: bson.Regex{Pattern: "^device:"}}}).Decode(&device); err != nil {
				t.Fatal(err)
			}
			if got := device.ExpiresAt.Sub(noon); got != c.want {
				t.Errorf("the counter of the device expires after %s, want %s", got, c.want)
			}
		})
	}
}

// A success resets the failures before it, but not attempts in flight.
func TestAttempt_SuccessResetsFailures(t *testing.T) {
	t.Parallel()
	l := limiter(t, mongotest.URI(t), at(noon))
	fail := func(n int) {
		for range n {
			if err := try(t, l, from("192.0.2.1:1"), false, (*Attempt).Fail); err != nil {
				t.Fatal(err)
			}
		}
	}
	fail(5)
	pending, err := begin(t.Context(), l, signin, from("192.0.2.1:1"), "ann@example.com", false)
	if err != nil {
		t.Fatal(err)
	}
	try(t, l, from("192.0.2.1:1"), false, (*Attempt).Succeed)
	if got := stored(t, l)["account"]; got != [2]int{6, 1} {
		t.Errorf("with an attempt in flight: stored %v, want [6 1]", got)
	}
	pending.Fail(t.Context())
	pending.Close(t.Context())
	try(t, l, from("192.0.2.1:1"), false, (*Attempt).Succeed)
	if got := stored(t, l)["account"]; got != [2]int{0, 0} {
		t.Errorf("without one: stored %v, want [0 0]", got)
	}
	fail(10)
	if err := try(t, l, from("192.0.2.1:1"), false, nil); !tooMany(err) {
		t.Errorf("after ten failures: got %v, want TooMany", err)
	}
}

// An attacker at the limit of the account cannot lock out a device, nor one device another.
func TestAttempt_DeviceHasItsOwnCounter(t *testing.T) {
	t.Parallel()
	l := limiter(t, mongotest.URI(t), at(noon))
	device := func(token string) endpoint.Client { return endpoint.Client{Peer: "192.0.2.1:1", Device: token} }
	for range 2 * freeFailures {
		try(t, l, from("192.0.2.9:1"), false, (*Attempt).Fail)
		try(t, l, device("attacker"), false, (*Attempt).Fail)
		try(t, l, device("other"), true, (*Attempt).Fail)
	}
	if err := try(t, l, device("owner"), true, (*Attempt).Succeed); err != nil {
		t.Errorf("the device of the owner: got %v, want no error", err)
	}
	for _, c := range []struct {
		token string
		known bool
	}{{"", false}, {"attacker", false}, {"made-up", false}, {"other", true}} {
		if err := try(t, l, device(c.token), c.known, nil); !tooMany(err) {
			t.Errorf("device %q: got %v, want TooMany", c.token, err)
		}
	}
}

func TestAllow_ParallelRequests(t *testing.T) {
	t.Parallel()
	uri := mongotest.URI(t)
	limiters := []*Limiter{limiter(t, uri, at(noon)), limiter(t, uri, at(noon))}
	limit := Limit{"test", 20, time.Minute}
	n := 0
	for range 5 {
		n += parallel(t, 16, func(i int) error { return limiters[i%2].Allow(t.Context(), limit, from("192.0.2.1:1")) })
	}
	if n != 20 {
		t.Errorf("%d of 80 requests passed, want 20", n)
	}
	for name, c := range map[string]struct {
		limit Limit
		from  string
		after time.Duration
		want  bool
	}{
		"the same address":                  {limit, "192.0.2.1:2", 59 * time.Second, false},
		"another address":                   {limit, "192.0.2.2:1", 0, true},
		"another limit":                     {Limit{"other", 20, time.Minute}, "192.0.2.1:1", 0, true},
		"the same address, the next window": {limit, "192.0.2.1:1", time.Minute, true},
	} {
		err := limiter(t, uri, at(noon.Add(c.after))).Allow(t.Context(), c.limit, from(c.from))
		if (err == nil) != c.want {
			t.Errorf("%s: got %v, allowed want %v", name, err, c.want)
		}
	}
}

func TestAllow_RetryAfterIsTheEndOfTheWindow(t *testing.T) {
	t.Parallel()
	l := limiter(t, mongotest.URI(t), at(noon.Add(30500*time.Millisecond)))
	limit := Limit{"test", 1, time.Minute}
	l.Allow(t.Context(), limit, from("192.0.2.1:1"))
	for range 2 {
		want := `[{Retry-After 30} {RateLimit-Policy "test";q=1;w=60} {RateLimit "test";r=0;t=30}]`
		if got := headers(l.Allow(t.Context(), limit, from("192.0.2.1:1"))); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// lowSignin is the limit of sign-ins with a tenth of the default quota.
var lowSignin = Limit{signin.Name, signin.Quota / 10, signin.Window}

// Fifteen right passwords at the same time from one address: none waits for the window.
func TestAttempt_AddressFullOfAttemptsInFlight(t *testing.T) {
	t.Parallel()
	moment := noon
	l := limiter(t, mongotest.URI(t), func() time.Time { return moment })
	var begun []*Attempt
	waiting := 0
	for i := range 15 {
		a, err := begin(t.Context(), l, lowSignin, from("192.0.2.1:1"), fmt.Sprint("user", i), false)
		if err == nil {
			begun = append(begun, a)
		} else {
			waiting++
			if !strings.Contains(headers(err), retryAfter(1)) {
				t.Errorf("attempt %d: got %s, want %s", i+1, headers(err), retryAfter(1))
			}
		}
	}
	if waiting != 5 {
		t.Errorf("%d of 15 must wait, want 5", waiting)
	}
	for _, a := range begun {
		a.Succeed(t.Context())
		a.Close(t.Context())
	}
	moment = noon.Add(rejectionTTL)
	for i := range 5 {
		a, err := begin(t.Context(), l, lowSignin, from("192.0.2.1:1"), fmt.Sprint("user", i), false)
		if err != nil {
			t.Fatalf("attempt %d a second later: %v", i+1, err)
		}
		a.Succeed(t.Context())
		a.Close(t.Context())
	}
	if got := stored(t, l)["signin"]; got != [2]int{15, 0} {
		t.Errorf("the address has counted %v, want 15 requests", got)
	}
}

func TestAttempt_AddressFullOfFailures(t *testing.T) {
	t.Parallel()
	l := limiter(t, mongotest.URI(t), at(noon))
	for i := range 11 {
		a, err := begin(t.Context(), l, lowSignin, from("192.0.2.1:1"), fmt.Sprint("user", i), false)
		if i < 10 && err != nil || i == 10 && !strings.Contains(headers(err), retryAfter(300)) {
			t.Errorf("attempt %d: %s", i+1, headers(err))
		}
		if err == nil {
			a.Fail(t.Context())
		}
		a.Close(t.Context())
	}
	if got := stored(t, l)["account"]; got != [2]int{10, 0} {
		t.Errorf("accounts have counted %v, want [10 0] without the rejected attempt", got)
	}
}

func TestAllow_IPv6Networks(t *testing.T) {
	t.Parallel()
	l := limiter(t, mongotest.URI(t), at(noon))
	limit := Limit{"test", 2, time.Minute}
	allow := func(address string) error { return l.Allow(t.Context(), limit, from(address)) }
	for i := range 2 * siteFactor { // two requests of each of 16 networks
		if err := allow(fmt.Sprintf("[2001:db8:0:%x::%x]:1", i/2, i+1)); err != nil {
			t.Fatalf("request %d: %v", i+1, err)
		}
		if i == 1 {
			if err := allow("[2001:db8::ffff]:1"); !tooMany(err) {
				t.Errorf("a third request of a /64: got %v, want TooMany", err)
			}
		}
	}
	for address, rejected := range map[string]bool{"[2001:db8:0:ff::1]:1": true, "[2001:db8:1::1]:1": false, "192.0.2.1:1": false} {
		if err := allow(address); tooMany(err) != rejected {
			t.Errorf("%s after a full /48: got %v, rejected want %v", address, err, rejected)
		}
	}
	if want := `RateLimit-Policy "test";q=32;w=60`; !strings.Contains(headers(allow("[2001:db8:0:ff::1]:1")), want) {
		t.Errorf("headers lack %s", want)
	}
}

func TestAllow_RejectionsCostNoCommands(t *testing.T) {
	t.Parallel()
	tap := mongotest.NewTap(t)
	l := limiter(t, tap.URI, at(noon))
	limit := Limit{"test", 1, time.Minute}
	for range 50 {
		l.Allow(t.Context(), limit, from("192.0.2.1:1"))
	}
	if got, want := tap.Commands(), "find ratelimits, update ratelimits, update ratelimits"; got != want {
		t.Errorf("50 requests cost %s, want %s", got, want)
	}
	for i := range 3 * maxRejections {
		l.reject(fmt.Sprint(i), rejection{expires: noon.Add(time.Hour)})
	}
	if len(l.full) > maxRejections {
		t.Errorf("%d rejections are in memory, want at most %d", len(l.full), maxRejections)
	}
}

func TestClock_WrongClockGivesNoMoreAttempts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("makes many attempts")
	}
	for _, skew := range []time.Duration{-time.Hour, -20 * time.Minute, 16 * time.Minute, time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			uri, moment := mongotest.URI(t), noon
			now := func() time.Time { return moment }
			limiters := []*Limiter{skewed(t, uri, now, skew), limiter(t, uri, now)}
			passed := 0
			for i := range 30 {
				if err := try(t, limiters[i%2], from(fmt.Sprintf("192.0.2.%d:1", i)), false, (*Attempt).Fail); err == nil {
					passed++
				} else if !tooMany(err) {
					t.Fatal(err)
				}
				moment = moment.Add(400 * time.Millisecond)
			}
			if passed != 13 { // ten, and three after waits of 1, 2 and 4 s
				t.Errorf("%d of 30 attempts in 12 s passed, want 13", passed)
			}
			limit, allowed := Limit{"test", 10, time.Minute}, 0
			for i := range 14 {
				if limiters[i%2].Allow(t.Context(), limit, from("198.51.100.1:1")) == nil {
					allowed++
				}
			}
			if allowed != 10 {
				t.Errorf("%d of 14 requests of an address passed, want 10", allowed)
			}
		})
	}
}

func TestClock_DatabaseTime(t *testing.T) {
	t.Parallel()
	l := limiter(t, mongotest.URI(t), func() time.Time { return time.Now().Add(-time.Hour) })
	l.SetClock(nil)
	if err := l.Allow(t.Context(), signin, from("192.0.2.1:1")); err != nil {
		t.Fatal(err)
	}
	if off := time.Since(l.clock.now()).Abs(); off > time.Minute || !l.clock.fresh() {
		t.Errorf("clock is wrong by %s, fresh %v; want less than 1m0s, fresh", off, l.clock.fresh())
	}
}

func TestClock_SlowReply(t *testing.T) {
	t.Parallel()
	own := noon
	c := clock{own: func() time.Time { return own }}
	for _, s := range []struct {
		name                     string
		sent, at, received, want time.Duration
	}{
		{"equal clocks", 0, 1, 2, 0},
		{"the own clock is slow", 10, 111, 11, 100},
		{"a slow reply that agrees", 20, 130, 60, 100},
		{"the own clock was corrected", 70, 71, 72, 1},
	} {
		own = noon.Add(s.received * time.Second)
		c.set(noon.Add(s.at*time.Second), noon.Add(s.sent*time.Second))
		if c.offset != s.want*time.Second {
			t.Errorf("%s: offset %s, want %s", s.name, c.offset, s.want*time.Second)
		}
	}
}

func TestLimiter_StoresOnlyDigests(t *testing.T) {
	t.Parallel()
	l := limiter(t, mongotest.URI(t), at(noon))
	try(t, l, endpoint.Client{Peer: "192.0.2.1:1", Device: "AAAAAAAAAAAAAAAAAAAAAA"}, true, (*Attempt).Fail)
	var all []bson.Raw
	find(t, l, &all)
	for _, document := range all {
		for _, s := range []string{"ann", "example", "192.0", "0.2.1", "AAAA"} {
			if strings.Contains(document.String(), s) {
				t.Errorf("document %s contains %s, want only digests", document, s)
			}
		}
	}
	if len(all) != 2 {
		t.Errorf("%d documents, want 2", len(all))
	}
}

// Without the database, the account limit rejects requests because it protects a secret. The
// address limit admits them because it protects capacity.
func TestLimiter_DatabaseDown(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for the database")
	}
	for name, listen := range map[string]bool{"connection refused": false, "no reply": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts no connection
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			if !listen {
				listener.Close()
			}
			l := limiter(t, "mongodb://"+listener.Addr().String()+"/?serverSelectionTimeoutMS=1500", at(noon))
			l.timeout = addressTimeout
			if err := l.Allow(t.Context(), signin, from("192.0.2.1:1")); err != nil {
				t.Errorf("a request: got %v, want no error", err)
			}
			if err := try(t, l, from("192.0.2.1:1"), false, nil); apierror.From(err).Kind() != apierror.Unavailable {
				t.Errorf("an attempt: got %v, want Unavailable", err)
			}
		})
	}
}

func TestLimiter_Off(t *testing.T) {
	t.Parallel()
	l := limiter(t, "mongodb://127.0.0.1:1/", at(noon), "RATE_LIMIT=off")
	for range 3 * freeFailures {
		err := try(t, l, endpoint.Client{Device: "unknown"}, false, (*Attempt).Fail)
		if err := errors.Join(err, l.Allow(t.Context(), Limit{"test", 1, time.Minute}, from("192.0.2.1:1"))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLimiter_AccountsOnly(t *testing.T) {
	t.Parallel()
	l := limiter(t, mongotest.URI(t), at(noon), "RATE_LIMIT=accounts")
	for range 3 {
		if err := l.Allow(t.Context(), Limit{"test", 1, time.Minute}, from("192.0.2.1:1")); err != nil {
			t.Fatal(err)
		}
	}
	for i := range freeFailures + 1 {
		if err := try(t, l, from("192.0.2.1:1"), false, (*Attempt).Fail); tooMany(err) != (i == freeFailures) {
			t.Errorf("attempt %d: got %v, rejected want %v", i+1, err, i == freeFailures)
		}
	}
}

func TestStart_Panic(t *testing.T) {
	t.Parallel()
	wait := start(func() error { panic("a secret") })
	if err := errors.Join(wait(), wait()); err == nil || strings.Contains(err.Error(), "a secret") {
		t.Errorf("got %v, want an error without the panic's value", err)
	}
}

func TestPrepare_DeletesExpiredCounters(t *testing.T) {
	t.Parallel()
	uri := mongotest.URI(t)
	l := limiter(t, uri, at(noon))
	for range 2 {
		if err := prepare(t, l, noon); err != nil {
			t.Fatal(err)
		}
	}
	l.Allow(t.Context(), Limit{"old", 1, time.Minute}, from("192.0.2.1:1"))
	later := limiter(t, uri, at(noon.Add(time.Hour)))
	later.Allow(t.Context(), Limit{"new", 1, time.Minute}, from("192.0.2.1:1"))
	if err := prepare(t, later, noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	got := stored(t, later)
	if _, is := got["new"]; !is {
		t.Errorf("stored %v, want the counter that has not expired", got)
	}
	specs, err := collection(t, later).Indexes().ListSpecifications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs {
		if s.ExpireAfterSeconds != nil {
			return // the server deletes expired counters later
		}
	}
	if _, is := got["old"]; is {
		t.Errorf("stored %v, want no expired counter", got)
	}
}

func prepare(t *testing.T, l *Limiter, now time.Time) error {
	return mongodb.Prepare(t.Context(), l.database, now, slog.New(slog.DiscardHandler), Collection)
}
