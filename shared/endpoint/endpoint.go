// Package endpoint is the typed contract between the wire and the business: a
// function declares an Endpoint, and the doors of package serve invoke it.
//
//	wire → serve (a door) → Endpoint.Invoke → the function's handle
//
// Everything that is the same for all functions happens here, once: limits,
// decoding, validation, the bearer header, panics, deadlines, rendering, the log
// line. A handle takes a typed input and returns a typed output or an error; it
// sees no HTTP and writes nothing.
//
// It is no router and no server: which function a path belongs to is package
// serve's business.
package endpoint

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"reflect"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
)

// A Trigger is an event of another service that a function takes.
type Trigger struct {
	Types   []string // the event types
	Reply   string   // type of the event that answers a success; an empty answer where empty
	Refusal string   // type of the event that answers an input which is refused
}

// A Spec is what is known of a function before it runs: the catalog, the
// manifests and the reference are made from it.
type Spec struct {
	Name    string        // the function, its folder, service and image: a DNS label
	Method  string        // GET answers HEAD as well
	Path    string        // matched exactly; a function that only takes events has none
	Success int           // the status of an answer that is no error
	Summary string        // one sentence for the reference
	MaxAge  time.Duration // how long a success may be cached by anybody; 0: never stored
	Budget  time.Duration // the longest a request may take; 0: 4.5 s

	// Anonymous lets a request without a token through to a handle that takes a
	// Bearer; its Token is then empty.
	Anonymous bool

	// Refuses names what the handle refuses beyond what follows from its input and
	// its parts. It is for the reference alone.
	Refuses []apierror.Kind
}

// Limit returns the longest that a request may take.
func (s Spec) Limit() time.Duration { return cmp.Or(s.Budget, budget) }

// A Handler is the business of a function. It must be safe for concurrent use,
// and it leaves nothing running: after the answer a function may be frozen or
// gone.
type Handler[In, Out any] func(context.Context, In) (Out, error)

// An Endpoint is a function that is not yet wired to its environment.
type Endpoint struct {
	Spec
	In, Out reflect.Type
	Trigger Trigger
	bind    func(Spec, *config.Config) call
	event   func(Spec, *config.Config) call // nil: it takes no event
	limit   func(*config.Config) Allow
	early   bool

	// EventReceiver is the door that its events come through. A function brings it
	// along, so that those which take no events do not link it.
	EventReceiver EventReceiver
}

// An EventReceiver returns what takes the events of a process, by their types.
type EventReceiver func(cfg *config.Config, takers map[string]*Function) http.Handler

type call func(context.Context, *Request) (any, error)

// Define declares a function. wire asks the environment for what the handle
// needs, which is also the only statement of what the function needs; it must do
// no work.
//
// In is None, Bearer, or a struct of JSON members, which may embed Keyed and Client and
// have a method Validate(*fault.Fields). If Validate needs settings, In has a method
// Configure(*config.Config) too, which is called once, at the start of the process: every input
// starts as a copy of the one that it is called on.
func Define[In, Out any](spec Spec, wire func(*config.Config) Handler[In, Out]) Endpoint {
	return Endpoint{Spec: spec, In: reflect.TypeFor[In](), Out: reflect.TypeFor[Out](), bind: bind(wire)}
}

// On declares that a function takes an event as well, through a door. Its data is
// In, read as that of a route, and its Out is the data of the reply. Functions use
// cloudevents.On, which has the door.
func On[In, Out any](e Endpoint, door EventReceiver, t Trigger, wire func(*config.Config) Handler[In, Out]) Endpoint {
	e.EventReceiver, e.Trigger, e.event = door, t, bind(wire)
	return e
}

// An Allow counts a request and returns an API error if its client has reached a limit.
type Allow func(context.Context, Client) error

// LimitRequests returns an endpoint whose rate limit counts each request before its input is
// read, for a function whose validation is expensive. Events are not counted.
func LimitRequests(e Endpoint, limit func(*config.Config) Allow) Endpoint {
	e.limit, e.early = limit, true
	return e
}

// LimitInvalid returns an endpoint whose rate limit counts requests with invalid input. The
// handler counts the others.
func LimitInvalid(e Endpoint, limit func(*config.Config) Allow) Endpoint {
	e.limit, e.early = limit, false
	return e
}

// WithOutput declares what an answer is like which the handle renders by itself: a raw
// JSON value does not say.
func WithOutput[Out any](e Endpoint) Endpoint {
	e.Out = reflect.TypeFor[Out]()
	return e
}

func bind[In, Out any](wire func(*config.Config) Handler[In, Out]) func(Spec, *config.Config) call {
	return func(spec Spec, cfg *config.Config) call {
		handle := wire(cfg)
		var blank In
		if in, ok := any(&blank).(interface{ Configure(*config.Config) }); ok {
			in.Configure(cfg)
		}
		return func(ctx context.Context, r *Request) (any, error) {
			in, err := read(spec, r, blank)
			if err != nil {
				r.invalid = true
				return nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, spec.Limit())
			defer cancel()
			out, err := handle(ctx, in)
			if err != nil {
				return nil, expired(ctx, err)
			}
			return out, nil
		}
	}
}

// Bind wires the function. What is missing or wrong in the environment is
// collected by the wiring; the result must not be invoked while it has faults.
// Events are wired only if the function is to take them.
func (e Endpoint) Bind(cfg *config.Config, events bool) *Function {
	f := &Function{Spec: e.Spec, Trigger: e.Trigger, log: cfg.Log()}
	if e.bind != nil {
		f.call = e.bind(e.Spec, cfg)
	}
	if e.limit != nil {
		f.call = limited(e.Limit(), e.limit(cfg), e.early, f.call)
	}
	if events && e.event != nil {
		f.event = e.event(e.Spec, cfg)
	}
	return f
}

// limited returns a call whose requests are counted: all of them before their input is read,
// or those with invalid input.
func limited(timeout time.Duration, allow Allow, early bool, next call) call {
	count := func(ctx context.Context, r *Request) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return allow(ctx, r.Client)
	}
	return func(ctx context.Context, r *Request) (any, error) {
		if early {
			if err := count(ctx, r); err != nil {
				return nil, err
			}
		}
		out, err := next(ctx, r)
		if !early && r.invalid {
			err = cmp.Or(count(ctx, r), err)
		}
		return out, err
	}
}

// A Function is a wired endpoint.
type Function struct {
	Spec
	Trigger     Trigger
	call, event call
	log         *slog.Logger
}
