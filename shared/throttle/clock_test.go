package throttle

import (
	"fmt"
	"testing"
	"time"

	"ticketing.com/auth/shared/mongotest"
)

var skews = []time.Duration{-time.Hour, -20 * time.Minute, 16 * time.Minute, 31 * time.Minute, time.Hour}

// Of two processes one has a wrong clock. Whichever is asked, guesses are bounded as if
// none had, and whoever waits as long as he must is let in.
func TestAWrongClockLetsNobodyGuessMore(t *testing.T) {
	for _, skew := range skews {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			uri, moment := mongotest.URI(t), noon
			now := func() time.Time { return moment }
			processes := []*Throttle{skewed(t, uri, now, skew), process(t, uri, now)}
			let := 0
			for i := range 100 {
				try := processes[i%2].Begin(t.Context(), from(fmt.Sprintf("192.0.2.%d:1", i)), "ann@example.com")
				if err := try.Admitted(); err != nil {
					t.Fatal(err)
				}
				if err := try.Count(false)(); err == nil {
					let++
				} else if !early(err) {
					t.Fatal(err)
				}
				try.Wrong()
				try.End()
				moment = moment.Add(100 * time.Millisecond)
			}
			if let != 13 { // ten, and those that waited 1, 2 and 4 s
				t.Errorf("of 100 guesses in 10 s %d were let in", let)
			}
			moment = moment.Add(8 * time.Second)
			for i, throttle := range processes {
				if err := throttle.enter(t.Context(), "account:"+digest("ann@example.com")); err != nil {
					t.Errorf("process %d, after the wait: %v", i, err)
				}
				moment = moment.Add(longestWait)
			}
		})
	}
}

// A limit is one for all processes, from the first request of each.
func TestAWrongClockGivesNoAddressASecondQuota(t *testing.T) {
	for _, skew := range skews {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			uri := mongotest.URI(t)
			processes := []*Throttle{process(t, uri, at(noon)), skewed(t, uri, at(noon), skew)}
			limit := Limit{Name: "test", Quota: 10, Window: time.Minute}
			admitted := 0
			for i := range 30 {
				err := processes[i%2].Admit(t.Context(), limit, from("192.0.2.1:1"))
				if err == nil {
					admitted++
				} else if !tooMany(err) {
					t.Error(err)
				}
			}
			if admitted != limit.Quota {
				t.Errorf("%d of 30 were admitted", admitted)
			}
		})
	}
}

// Where no address was counted, or long ago, an account's count asks for the time.
func TestAnAccountIsCountedByTheDatabasesClockEvenIfNoAddressWas(t *testing.T) {
	uri, own := mongotest.URI(t), noon
	throttle := process(t, uri, func() time.Time { return own })
	throttle.By(at(noon))
	for i := range 15 {
		err := throttle.enter(t.Context(), "account:x")
		if i < free && err != nil || i >= free && err == nil {
			t.Errorf("try %d: %v", i+1, err)
		}
		own = own.Add(time.Hour) // it jumps
	}
}

// The real thing: the database's own clock, which is this machine's.
func TestTheDatabaseTellsTheTime(t *testing.T) {
	for name, hear := range map[string]func(*Throttle) error{
		"by an address's count": func(h *Throttle) error { return h.Admit(t.Context(), Signup, from("192.0.2.1:1")) },
		"when it is asked": func(h *Throttle) error {
			c, err := h.collection(t.Context())
			if err == nil {
				_, err = h.time(t.Context(), c)
			}
			return err
		},
	} {
		throttle := skewed(t, mongotest.URI(t), time.Now, -time.Hour)
		throttle.By(nil)
		if err := hear(throttle); err != nil {
			t.Fatal(err)
		}
		// between asking and hearing it may have taken long; an hour it was not
		if off := time.Since(throttle.clock.now()).Abs(); off > time.Minute || !throttle.clock.heardLately() {
			t.Errorf("%s: off by %s", name, off)
		}
	}
}

func TestASlowAnswerSpoilsNothingThatAFastOneTold(t *testing.T) {
	own := noon
	c := clock{own: func() time.Time { return own }}
	hear := func(asked, at, heard time.Duration) time.Duration {
		own = noon.Add(heard)
		c.hear(noon.Add(at), noon.Add(asked))
		return c.offset
	}
	for _, s := range []struct {
		name                   string
		asked, at, heard, want time.Duration
	}{
		{"the clocks are one", 0, 1, 2, 0},
		{"ours is slow", 10, 111, 11, 100},
		{"a slow answer that may be of then", 20, 130, 60, 100},
		{"one that shows ours to have been put right", 70, 71, 72, 1},
	} {
		if got := hear(s.asked*time.Second, s.at*time.Second, s.heard*time.Second); got != s.want*time.Second {
			t.Errorf("%s: %s", s.name, got)
		}
	}
}
