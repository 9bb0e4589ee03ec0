package throttle

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

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/fault"
	"ticketing.com/auth/shared/mongotest"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// The rule by itself: who tries when, and who is let in.
func TestAfterTenFailuresEachFurtherTryWaitsLonger(t *testing.T) {
	const let, early = true, false
	type try struct {
		after time.Duration // since the one before
		is    bool
	}
	times := func(n int, t try) (all []try) {
		for range n {
			all = append(all, t)
		}
		return all
	}
	join := func(all ...[]try) (tries []try) {
		for _, a := range all {
			tries = append(tries, a...)
		}
		return tries
	}
	for _, c := range []struct {
		name  string
		tries []try
	}{
		{"ten at once are free, the next is early", join(times(10, try{0, let}), times(3, try{0, early}))},
		{"ten in a quarter of an hour are free", join(times(10, try{100 * time.Second, let}), times(1, try{0, early}))},
		{"the waits double", join(times(10, try{0, let}), []try{
			{999 * time.Millisecond, early}, {time.Millisecond, let},
			{1999 * time.Millisecond, early}, {time.Millisecond, let},
			{3999 * time.Millisecond, early}, {time.Millisecond, let},
			{7999 * time.Millisecond, early}, {time.Millisecond, let}})},
		{"no wait is longer than a quarter of an hour", join(times(10, try{0, let}), times(20, try{15 * time.Minute, let}), []try{
			{15*time.Minute - time.Millisecond, early}, {time.Millisecond, let}})},
		{"who tries too early does not prolong it", join(times(10, try{0, let}), times(9, try{100 * time.Millisecond, early}), []try{{100 * time.Millisecond, let}})},
		{"a quarter of an hour without one forgets them", join(times(9, try{0, let}), []try{{15 * time.Minute, let}}, times(9, try{0, let}), times(1, try{0, early}))},
		{"less does not", join(times(9, try{0, let}), []try{{15*time.Minute - time.Millisecond, let}, {0, early}})},
		{"a clock that goes an hour ahead keeps nobody out", join(times(10, try{0, let}), []try{{time.Hour, let}}, times(9, try{0, let}), []try{{-time.Hour, let}, {0, early}})},
		{"one that goes a minute ahead is waited for", join(times(10, try{0, let}), []try{{time.Minute, let}, {-time.Minute, early}})},
		{"after a wait it is a quarter of an hour more", join(times(10, try{0, let}), []try{{15 * time.Minute, let}, {time.Second, early}})},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f failures
			now := noon
			for i, try := range c.tries {
				now = now.Add(try.after)
				next, err := f.next(now)
				if is := err == nil; is != try.is || !is && !errors.Is(err, ErrEarly) {
					t.Fatalf("try %d: %v", i+1, err)
				}
				if err != nil && next != f {
					t.Fatalf("try %d changed %v to %v", i+1, f, next)
				}
				f = next
				f.Wrong = f.N
			}
		})
	}
}

// Who finds the count full is told so only if it is full of failures.
func TestATryUnderWayIsNoFailure(t *testing.T) {
	for _, c := range []struct {
		name     string
		n, wrong int
		after    time.Duration // since the last of them
		want     error
	}{
		{"nine under way", 9, 0, 0, nil},
		{"ten under way", 10, 0, 0, errUndecided},
		{"one under way after nine failures", 10, 9, 0, errUndecided},
		{"ten failures", 10, 10, 0, ErrEarly},
		{"one under way after ten failures", 11, 10, 0, ErrEarly},
		{"ten that were under way when their process was killed", 14, 0, 9 * time.Second, ErrEarly},
		{"ten under way, after the wait", 10, 0, time.Second, nil},
	} {
		f := failures{N: c.n, Wrong: c.wrong, Last: noon}
		if _, err := f.next(noon.Add(c.after)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", c.name, err, c.want)
		}
	}
}

// A process is a throttle with a connection of its own.
func process(t *testing.T, uri string, now func() time.Time, settings ...string) *Throttle {
	t.Helper()
	environment := map[string]string{"MONGODB_URI": uri}
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		environment[name] = value
	}
	w := app.New(func(name string) (string, bool) { v, ok := environment[name]; return v, ok },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, now)
	throttle := Wire(w)
	if err := w.Err(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(context.Background()) })
	throttle.By(now)
	return throttle
}

// skewed is a process whose own clock is not the one that counts.
func skewed(t *testing.T, uri string, now func() time.Time, by time.Duration) *Throttle {
	t.Helper()
	throttle := process(t, uri, func() time.Time { return now().Add(by) })
	throttle.By(now)
	return throttle
}

func at(moment time.Time) func() time.Time { return func() time.Time { return moment } }

func from(address string) endpoint.Caller { return endpoint.Caller{Peer: address} }

// race calls f n times at once and counts how often it returned nil; all other errors
// must be the expected one, or a fault of the expected kind.
func race(t *testing.T, n int, expected func(error) bool, f func(i int) error) int {
	t.Helper()
	var won atomic.Int64
	var start, group sync.WaitGroup
	start.Add(1)
	for i := range n {
		group.Go(func() {
			start.Wait()
			if err := f(i); err == nil {
				won.Add(1)
			} else if !expected(err) {
				t.Error(err)
			}
		})
	}
	start.Done()
	group.Wait()
	return int(won.Load())
}

func tooMany(err error) bool { return fault.From(err).Kind() == fault.TooMany }
func early(err error) bool   { return errors.Is(err, ErrEarly) }
func underway(err error) bool {
	return errors.Is(err, errUndecided) && fault.From(err).Kind() == fault.Unavailable
}

func TestOfManyTriesAtOnceInTwoProcessesTenAreLetIn(t *testing.T) {
	uri := mongotest.URI(t)
	moment := noon
	now := func() time.Time { return moment }
	processes := []*Throttle{process(t, uri, now), process(t, uri, now)}
	refused := func(err error) bool { return early(err) || underway(err) }
	try := func(i int) error { return processes[i%2].enter(t.Context(), "account:x") }
	if n := race(t, 200, underway, try); n != 10 {
		t.Errorf("%d of 200 were let in", n)
	}
	for i, after := range []time.Duration{time.Second, 3 * time.Second, 7 * time.Second} { // each a wait later
		moment = noon.Add(after)
		if n := race(t, 50, refused, try); n != 1 {
			t.Errorf("after wait %d %d of 50 were let in", i+1, n)
		}
	}
	moment = noon.Add(time.Hour)
	if n := race(t, 50, refused, try); n != 10 {
		t.Errorf("after an hour %d of 50 were let in", n)
	}
}

func TestOfManyRequestsOfAnAddressInTwoProcessesItsQuotaIsAdmitted(t *testing.T) {
	uri := mongotest.URI(t)
	processes := []*Throttle{process(t, uri, at(noon)), process(t, uri, at(noon))}
	limit := Limit{Name: "test", Quota: 20, Window: time.Minute}
	n := 0
	for range 5 { // no more at once than the embedded database answers within patience
		n += race(t, 16, tooMany, func(i int) error { return processes[i%2].Admit(t.Context(), limit, from("192.0.2.1:1")) })
	}
	if n != 20 {
		t.Errorf("%d of 80 were admitted", n)
	}
	for name, c := range map[string]struct {
		limit Limit
		from  string
		after time.Duration
		want  bool
	}{
		"the same address is refused":            {limit, "192.0.2.1:2", 59 * time.Second, false},
		"another address is not":                 {limit, "192.0.2.2:1", 0, true},
		"another limit is not":                   {Limit{Name: "other", Quota: 20, Window: time.Minute}, "192.0.2.1:1", 0, true},
		"nor the same address in another window": {limit, "192.0.2.1:1", time.Minute, true},
	} {
		err := process(t, uri, at(noon.Add(c.after))).Admit(t.Context(), c.limit, from(c.from))
		if (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhoIsRefusedIsToldWhenToComeBack(t *testing.T) {
	throttle := process(t, mongotest.URI(t), at(noon.Add(30500*time.Millisecond)))
	limit := Limit{Name: "test", Quota: 1, Window: time.Minute}
	throttle.Admit(t.Context(), limit, from("192.0.2.1:1"))
	err := throttle.Admit(t.Context(), limit, from("192.0.2.1:1"))
	want := `[{Retry-After 30} {RateLimit-Policy "test";q=1;w=60} {RateLimit "test";r=0;t=30}]`
	if got := fmt.Sprint(fault.From(err).Headers()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A process asks the database about a full limit once a second, however often it is
// asked itself.
func TestAFullLimitIsNotCountedAgainAndAgain(t *testing.T) {
	tap := mongotest.NewTap(t)
	throttle := process(t, tap.URI, at(noon))
	limit := Limit{Name: "test", Quota: 1, Window: time.Minute}
	for range 50 {
		throttle.Admit(t.Context(), limit, from("192.0.2.1:1"))
	}
	// one that is let in, one that is not and gives back, and 48 that ask nobody
	if got := tap.Commands(); got != "findAndModify throttles, findAndModify throttles, update throttles" {
		t.Errorf("asked was %s", got)
	}
	for i := range 3 * maxBelieved {
		throttle.setFull(fmt.Sprint(i), noon)
	}
	if len(throttle.full) > maxBelieved {
		t.Errorf("%d are remembered", len(throttle.full))
	}
}

func counts(t *testing.T, throttle *Throttle) map[string]int {
	t.Helper()
	c, err := throttle.collection(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cursor, err := c.Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for cursor.Next(t.Context()) {
		var d struct {
			ID string `bson:"_id"`
			N  int    `bson:"n"`
		}
		if err := cursor.Decode(&d); err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(d.ID, ":")
		all[kind] += d.N
	}
	return all
}

// What a try leaves behind, by how it ended.
func TestOnlyAWrongPasswordStaysCounted(t *testing.T) {
	for _, c := range []struct {
		name            string
		known           bool
		end             func(*Try)
		address, counts int
	}{
		{"a wrong password", false, (*Try).Wrong, 10, 1},
		{"a wrong password from a device", true, (*Try).Wrong, 10, 1},
		{"a right password", false, (*Try).Right, 1, 0},
		{"a right password from a device", true, (*Try).Right, 1, 0},
		{"a password that nobody looked at", false, func(*Try) {}, 1, 0},
		{"a password from a device that nobody looked at", true, func(*Try) {}, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			throttle := process(t, mongotest.URI(t), at(noon))
			try := throttle.Begin(t.Context(), from("192.0.2.1:1"), "ann@example.com")
			if err := errors.Join(try.Admitted(), try.Count(c.known)()); err != nil {
				t.Fatal(err)
			}
			c.end(try)
			try.End()
			kind, got := "account", counts(t, throttle)
			if c.known {
				kind = "device"
			}
			if got["signin"] != c.address || got[kind] != c.counts || len(got) != 2 {
				t.Errorf("counted is %v", got)
			}
		})
	}
}

// What was forgotten makes no failures of tries that are under way.
func TestFailuresThatWereForgottenAreNone(t *testing.T) {
	moment := noon
	throttle := process(t, mongotest.URI(t), func() time.Time { return moment })
	for range free {
		try := throttle.Begin(t.Context(), from("192.0.2.1:1"), "ann@example.com")
		if err := errors.Join(try.Admitted(), try.Count(false)()); err != nil {
			t.Fatal(err)
		}
		try.Wrong()
		try.End()
	}
	moment = noon.Add(time.Hour)
	enter := func() error { return throttle.enter(t.Context(), "account:"+digest("ann@example.com")) }
	for range free {
		if err := enter(); err != nil {
			t.Fatal(err)
		}
	}
	if err := enter(); !underway(err) {
		t.Errorf("with ten under way: %v", err)
	}
}

// Who knows the password takes back his own try, and of a device all, since its failures
// were its owner's. Of strangers it takes no more: they may be others.
func TestWhatARightPasswordForgives(t *testing.T) {
	for kind, left := range map[string]int{"account": 3, "device": 0} {
		throttle := process(t, mongotest.URI(t), at(noon))
		end := func(end func(*Try)) {
			try := throttle.Begin(t.Context(), from("192.0.2.1:1"), "ann@example.com")
			if err := errors.Join(try.Admitted(), try.Count(kind == "device")()); err != nil {
				t.Fatal(err)
			}
			end(try)
			try.End()
		}
		for range 3 {
			end((*Try).Wrong)
		}
		end((*Try).Right)
		if got := counts(t, throttle)[kind]; got != left {
			t.Errorf("of 3 failures of a kind, %s, %d are left", kind, got)
		}
	}
}

// Right passwords that are under way fill a limit for as long as they are; it is asked
// again after a second.
func TestAFullLimitIsBelievedForASecond(t *testing.T) {
	moment := noon
	throttle := process(t, mongotest.URI(t), func() time.Time { return moment })
	var tries []*Try
	for i := range Signin.Quota / Signin.weight {
		tries = append(tries, throttle.Begin(t.Context(), from("192.0.2.1:1"), fmt.Sprint(i)))
		if err := tries[i].Admitted(); err != nil {
			t.Fatal(err)
		}
	}
	admitted := func() error { return throttle.Begin(t.Context(), from("192.0.2.1:1"), "ann@example.com").Admitted() }
	if err := admitted(); !tooMany(err) {
		t.Errorf("one more: %v", err)
	}
	for _, try := range tries {
		try.Right()
		try.End()
	}
	moment = noon.Add(believed - time.Millisecond)
	if err := admitted(); !tooMany(err) {
		t.Errorf("before a second is over: %v", err)
	}
	moment = noon.Add(believed)
	if err := admitted(); err != nil {
		t.Errorf("a second later: %v", err)
	}
	if believed > time.Second {
		t.Errorf("somebody who may sign in is kept out for %s", believed)
	}
}

// The sign-ins of a whole campus at once, at many processes: who is refused, since too many
// are under way, uses up nothing, and all get in by and by.
func TestWhoIsRefusedUsesUpNothing(t *testing.T) {
	uri := mongotest.URI(t)
	limit := Limit{Name: "test", Quota: 100, Window: time.Minute, weight: 10}
	for wave, want := range []int{10, 9, 8} { // each that was let in stays as one
		var in []string
		for range 15 { // a process each, so that none believes what another has found
			id, err := process(t, uri, at(noon)).admit(t.Context(), limit, "192.0.2.1")
			if err == nil {
				in = append(in, id)
			}
		}
		if len(in) != want {
			t.Errorf("in wave %d there are let in %d, want %d", wave, len(in), want)
		}
		for _, id := range in { // all were right
			if err := process(t, uri, at(noon)).change(t.Context(), less(id, limit.weight-1)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A caller that leaves in the middle gets back what was counted all the same.
func TestACallerThatLeavesHasNotFailed(t *testing.T) {
	throttle := process(t, mongotest.URI(t), at(noon))
	ctx, leave := context.WithCancel(t.Context())
	try := throttle.Begin(ctx, from("192.0.2.1:1"), "ann@example.com")
	if err := errors.Join(try.Admitted(), try.Count(false)()); err != nil {
		t.Fatal(err)
	}
	leave()
	try.End()
	if got := counts(t, throttle); got["signin"] != 1 || got["account"] != 0 {
		t.Errorf("counted is %v", got)
	}
}

func TestNothingIsKeptInClear(t *testing.T) {
	throttle := process(t, mongotest.URI(t), at(noon))
	try := throttle.Begin(t.Context(), from("192.0.2.1:1"), "ann@example.com")
	try.Admitted()
	try.Count(true)()
	try.Wrong()
	try.End()
	c, err := throttle.collection(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cursor, err := c.Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; cursor.Next(t.Context()); n++ {
		for _, s := range []string{"ann", "example", "192.0", "0.2.1"} {
			if strings.Contains(cursor.Current.String(), s) {
				t.Errorf("%s holds %s", cursor.Current, s)
			}
		}
	}
	if n != 2 {
		t.Errorf("%d documents", n)
	}
}

func TestADeviceIsAnAccountAndAnAddress(t *testing.T) {
	on, off := &Throttle{}, &Throttle{off: true}
	home := on.Device(from("[2001:db8::1]:1"), "ann")
	for name, c := range map[string]struct {
		device string
		same   bool
	}{
		"the same again":               {on.Device(from("[2001:db8::1]:1"), "ann"), true},
		"another address of the /64":   {on.Device(from("[2001:db8::2]:2"), "ann"), true},
		"another network":              {on.Device(from("[2001:db8:0:1::1]:1"), "ann"), false},
		"somebody else, there":         {on.Device(from("[2001:db8::1]:1"), "bob"), false},
		"where nothing is throttled":   {off.Device(from("[2001:db8::1]:1"), "ann"), false},
		"where nobody knows the place": {on.Device(from(""), "ann"), false},
	} {
		if (c.device == home) != c.same {
			t.Errorf("%s: %q, and %q", name, c.device, home)
		}
	}
	if len(home) != 5 || off.Device(from("192.0.2.1:1"), "ann") != "" {
		t.Errorf("%q", home)
	}
}

// What guards a secret fails closed, what guards the machine fails open.
func TestWhereTheDatabaseIsAway(t *testing.T) {
	for name, listen := range map[string]bool{"it refuses": false, "it is silent": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0") // its connections are never taken up
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			if !listen {
				listener.Close()
			}
			throttle := process(t, "mongodb://"+listener.Addr().String()+"/?serverSelectionTimeoutMS=1500", at(noon))
			began := time.Now()
			if err := throttle.Admit(t.Context(), Signup, from("192.0.2.1:1")); err != nil {
				t.Errorf("a sign-up: %v", err)
			}
			if took := time.Since(began); took > 3*patience {
				t.Errorf("it took %s to let it in", took)
			}
			try := throttle.Begin(t.Context(), from("192.0.2.1:1"), "ann@example.com")
			defer try.End()
			if err := try.Admitted(); err != nil {
				t.Errorf("an address: %v", err)
			}
			if err := try.Count(false)(); fault.From(err).Kind() != fault.Unavailable {
				t.Errorf("an account: %v", err)
			}
		})
	}
}

func TestWhereItIsOffNothingIsCountedOrAsked(t *testing.T) {
	throttle := process(t, "mongodb://127.0.0.1:1/", at(noon), "THROTTLE=off")
	for range 3 * free {
		try := throttle.Begin(t.Context(), from("192.0.2.1:1"), "ann@example.com")
		if err := errors.Join(try.Admitted(), try.Count(false)(), throttle.Admit(t.Context(), Limit{Name: "test", Window: time.Minute}, from("192.0.2.1:1"))); err != nil {
			t.Fatal(err)
		}
		try.Wrong()
		try.End()
	}
}

// Where nobody's address is known, all would have one count, which one of them could
// use up for everybody; and everybody would have the owner's device.
func TestWhereAddressesAreNotKnownAccountsAreStillCounted(t *testing.T) {
	throttle := process(t, mongotest.URI(t), at(noon), "THROTTLE=accounts")
	caller := from("192.0.2.1:1")
	for range 2 * Signup.Quota {
		if err := throttle.Admit(t.Context(), Signup, caller); err != nil {
			t.Fatal(err)
		}
	}
	if device := throttle.Device(caller, "1"); device != "" {
		t.Errorf("the device %s", device)
	}
	for i := range free + 1 {
		try := throttle.Begin(t.Context(), caller, "ann@example.com")
		want := error(nil)
		if i == free {
			want = ErrEarly
		}
		if err := errors.Join(try.Admitted(), try.Count(false)()); !errors.Is(err, want) {
			t.Errorf("try %d: %v", i+1, err)
		}
		try.Wrong()
		try.End()
	}
}

func TestAPanicBesideTheRequestIsAnError(t *testing.T) {
	wait := begin(func() error { panic("a secret") })
	if err := errors.Join(wait(), wait()); err == nil || strings.Contains(err.Error(), "a secret") {
		t.Error(err)
	}
}

func TestPrepareMayBeRepeatedAndSweeps(t *testing.T) {
	uri := mongotest.URI(t)
	throttle := process(t, uri, at(noon))
	for range 2 {
		if err := throttle.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	throttle.Admit(t.Context(), Signup, from("192.0.2.1:1"))
	later := process(t, uri, at(noon.Add(time.Hour)))
	later.Admit(t.Context(), Refresh, from("192.0.2.1:1"))
	if err := later.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := counts(t, later)
	if got["refresh"] != 1 {
		t.Errorf("what is not over was swept out: %v", got)
	}
	c, err := later.collection(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	specs, err := c.Indexes().ListSpecifications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs {
		if s.ExpireAfterSeconds != nil {
			return // the server sweeps by itself, in its own time
		}
	}
	if got["signup"] != 0 {
		t.Errorf("what is over is still there: %v", got)
	}
}
