package receiver_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/receiver"
	"ticketing.com/auth/shared/httpserver"
)

type keyed struct {
	endpoint.Keyed
	Name string `json:"name"`
}

// counter is the work of one function: the keys of the events that it processed.
type counter struct {
	mu   sync.Mutex
	keys map[string]int
}

func (c *counter) process(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil {
		c.keys = map[string]int{}
	}
	c.keys[key]++
}

// calls returns the number of calls, and that of different events.
func (c *counter) calls() (all, different int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range maps.Values(c.keys) {
		all += n
	}
	return all, len(c.keys)
}

// function returns a function that takes the event hello.v1.
func function[Out any](name string, r endpoint.Receiver, handle func(context.Context, keyed) (Out, error)) endpoint.Function {
	r.Types = append(r.Types, hello)
	return endpoint.Function{Name: name, Receivers: []endpoint.Receiver{receiver.On(r, newNothing,
		func(_ struct{}, ctx context.Context, in keyed) (Out, error) { return handle(ctx, in) })}}
}

func silent(name string, c *counter, outcome func() error) endpoint.Function {
	return function(name, endpoint.Receiver{}, func(_ context.Context, in keyed) (endpoint.None, error) {
		c.process(in.Key)
		return endpoint.None{}, outcome()
	})
}

func replying(name string, c *counter) endpoint.Function {
	return function(name, endpoint.Receiver{Reply: greeted, Refusal: refused}, func(_ context.Context, in keyed) (named, error) {
		c.process(in.Key)
		if in.Name == "x" {
			return named{}, apierror.Field("name", "Not x.")
		}
		return named{in.Name}, nil
	})
}

// All receivers of a type in a process receive each event. The broker gets one answer.
func TestReceiver_SeveralFunctionsOfOneType(t *testing.T) {
	fails := func(err error) func() error { return func() error { return err } }
	for _, c := range []struct {
		name       string
		outcome    func() error // of the silent function
		data       string
		status     int
		kind       string // of the reply
		retryAfter bool
	}{
		{"both succeed", fails(nil), "ann", 200, "greeted.v1", false},
		{"one succeeds and one refuses", fails(nil), "x", 200, "refused.v1", false},
		{"one is unavailable and one replies", fails(apierror.Unreachable(nil)), "ann", 503, "", true},
		{"one is unavailable and one refuses", fails(apierror.Unreachable(nil)), "x", 503, "", true},
		{"one has an unexpected error", fails(io.ErrUnexpectedEOF), "ann", 500, "", false},
		{"one panics", func() error { panic("secret") }, "ann", 500, "", false},
		{"one reports a conflict that a retry can solve", fails(apierror.New(apierror.Conflict, "Later.")), "ann", 409, "", false},
		{"one rejects the event for good and one replies", fails(apierror.Field("name", "No.")), "ann", 200, "greeted.v1", false},
		{"one rejects the event for good and one refuses", fails(apierror.New(apierror.Forbidden, "No.")), "x", 200, "refused.v1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, repliesFirst := range []bool{true, false} {
				var one, other counter
				functions := []endpoint.Function{replying("replying", &one), silent("silent", &other, c.outcome)}
				if !repliesFirst {
					functions[0], functions[1] = functions[1], functions[0]
				}
				handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "insecure"}), functions...)
				var ids []string
				for range 2 { // a repeated delivery
					status, header, body := deliver(t, handler, binary, `{"name":"`+c.data+`"}`)
					if status != c.status || header.Get("Ce-Type") != c.kind || (header.Get("Retry-After") != "") != c.retryAfter || strings.Contains(body, "secret") {
						t.Errorf("got %d %v %s, want %d, the reply %q, Retry-After: %v", status, header, body, c.status, c.kind, c.retryAfter)
					}
					ids = append(ids, header.Get("Ce-Id"))
				}
				if ids[0] != ids[1] {
					t.Errorf("got the replies %v, want one id", ids)
				}
				for name, c := range map[string]*counter{"replying": &one, "silent": &other} {
					if all, different := c.calls(); all != 2 || different != 1 {
						t.Errorf("%s: got %d calls for %d events, want 2 for the two deliveries of 1 event", name, all, different)
					}
				}
			}
		})
	}
}

func TestReceiver_SeveralRejectForGood(t *testing.T) {
	reject := func() error { return apierror.Field("name", "No.") }
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "insecure"}),
		silent("one", &counter{}, reject), silent("two", &counter{}, func() error { return nil }))
	status, header, body := deliver(t, handler, binary, `{"name":"ann"}`)
	if status != http.StatusBadRequest || header.Get("Ce-Type") != "" || !strings.Contains(body, `"No."`) {
		t.Errorf("got %d %v %s, want 400", status, header, body)
	}
}

// A status after which a broker retries precedes one after which it does not, although its
// number may be lower.
func TestReceiver_RetryPrecedesRejection(t *testing.T) {
	for _, reverse := range []bool{false, true} {
		all := []endpoint.Function{
			silent("rejects", &counter{}, func() error { return apierror.New(apierror.TooLarge, "Too large.") }),
			silent("conflicts", &counter{}, func() error { return apierror.New(apierror.Conflict, "Later.") }),
		}
		if reverse {
			all[0], all[1] = all[1], all[0]
		}
		handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "insecure"}), all...)
		if status, _, body := deliver(t, handler, binary, `{"name":"ann"}`); status != http.StatusConflict {
			t.Errorf("got %d %s, want 409", status, body)
		}
	}
}

// A receiver has its whole time limit, however long the others take. The broker waits for the
// longest of them, not for their sum.
func TestReceiver_SeveralTimeLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		took := map[string]time.Duration{}
		waiting := func(name string, budget time.Duration) endpoint.Function {
			return function(name, endpoint.Receiver{Budget: budget}, func(ctx context.Context, _ keyed) (endpoint.None, error) {
				began := time.Now()
				<-ctx.Done()
				mu.Lock()
				defer mu.Unlock()
				took[name] = time.Since(began)
				return endpoint.None{}, ctx.Err()
			})
		}
		var c counter
		handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "insecure"}), waiting("short", time.Second), waiting("default", 0), waiting("long", 25*time.Second), replying("replying", &c))
		began := time.Now()
		status, _, body := deliver(t, handler, binary, `{"name":"ann"}`)
		if all := time.Since(began); status != http.StatusServiceUnavailable || all != 25*time.Second {
			t.Errorf("got %d %s after %s, want 503 after 25s", status, body, all)
		}
		if want := map[string]time.Duration{"short": time.Second, "default": 4500 * time.Millisecond, "long": 25 * time.Second}; !maps.Equal(took, want) {
			t.Errorf("got the times %v, want %v", took, want)
		}
		if all, _ := c.calls(); all != 1 {
			t.Errorf("the receiver that replies: got %d calls, want 1", all)
		}
	})
}

// Only the functions that take a type receive its events.
func TestReceiver_SeveralTypes(t *testing.T) {
	var one, two counter
	helloed := silent("hello", &one, func() error { return nil })
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "insecure"}), helloed,
		endpoint.Function{Name: "bye", Receivers: []endpoint.Receiver{receiver.On(
			endpoint.Receiver{Types: []*event.Type{event.Define[named]("bye.v1", "", ""), event.Untyped("ping", "")}}, newNothing,
			func(_ struct{}, _ context.Context, in keyed) (endpoint.None, error) {
				two.process(in.Key)
				return endpoint.None{}, nil
			})}})
	for i, kind := range []string{"hello.v1", "bye.v1", "ping", "ping"} {
		header := strings.Replace(strings.Replace(binary, "hello.v1", kind, 1), "ce-id: 1", fmt.Sprint("ce-id: ", i), 1)
		if status, _, body := deliver(t, handler, header, `{"name":"ann"}`); status != http.StatusOK || body != "" {
			t.Errorf("%s: got %d %s, want 200 and no body", kind, status, body)
		}
	}
	for name, c := range map[string]struct {
		*counter
		want int
	}{"hello": {&one, 1}, "bye": {&two, 3}} {
		if all, _ := c.calls(); all != c.want {
			t.Errorf("%s: got %d calls, want %d", name, all, c.want)
		}
	}
}

// A receiver whose output is a nil pointer has no reply.
func TestReceiver_OptionalReply(t *testing.T) {
	f := function("sometimes", endpoint.Receiver{Reply: greeted}, func(_ context.Context, in keyed) (*named, error) {
		if in.Name == "x" {
			return nil, nil
		}
		return &named{in.Name}, nil
	})
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "insecure"}), f)
	for name, want := range map[string][2]string{"ann": {"greeted.v1", `{"name":"ann"}`}, "x": {"", ""}} {
		status, header, body := deliver(t, handler, binary, `{"name":"`+name+`"}`)
		if status != http.StatusOK || header.Get("Ce-Type") != want[0] || body != want[1] {
			t.Errorf("%s: got %d, the type %q and %q, want 200 and %q", name, status, header.Get("Ce-Type"), body, want)
		}
	}
}

// A process that is a sink ignores events of other types, unless another function is in it.
func TestReceiver_Sink(t *testing.T) {
	handle := func(context.Context, keyed) (endpoint.None, error) { return endpoint.None{}, nil }
	sink, other := function("sink", endpoint.Receiver{Sink: true}, handle), function("other", endpoint.Receiver{}, handle)
	unknown := strings.Replace(binary, "hello.v1", "unknown.v1", 1)
	for name, c := range map[string]struct {
		functions []endpoint.Function
		header    string
		want      int
	}{
		"an event of another type":         {[]endpoint.Function{sink}, unknown, http.StatusOK},
		"an invalid event of another type": {[]endpoint.Function{sink}, strings.Replace(unknown, "ce-id: 1", "ce-id: ", 1), http.StatusBadRequest},
		"no sink":                          {[]endpoint.Function{other}, unknown, http.StatusBadRequest},
		"a sink beside another function":   {[]endpoint.Function{sink, other}, unknown, http.StatusBadRequest},
	} {
		handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "insecure"}), c.functions...)
		if status, _, body := deliver(t, handler, c.header, `{"name":"ann"}`); status != c.want {
			t.Errorf("%s: got %d %s, want %d", name, status, body, c.want)
		}
	}
}
