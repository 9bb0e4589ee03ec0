// Package endpoint defines the typed contract between transports and handlers. A
// function declares an Endpoint, and the transports of package httpserver invoke it:
//
//	client → transport (package httpserver) → Function.Invoke → handler
//
// The package does once the work that all functions share: limits, decoding,
// validation, the Authorization header, panics, deadlines, encoding and the log line. A
// handler takes a typed input and returns a typed output or an error. It does not see
// HTTP and writes nothing.
//
// Package httpserver does the routing.
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

// A Trigger lists the events of other services that a function receives.
type Trigger struct {
	Types   []string // the event types
	Reply   string   // the event type of the reply to a success; if empty, there is no reply
	Refusal string   // the event type of the reply to rejected input
}

// A Spec describes a function before it runs. The catalog, the manifests and the API
// reference are generated from it.
type Spec struct {
	Name    string        // the function, its folder, service and image: a DNS label
	Method  string        // GET includes HEAD
	Path    string        // matched exactly; empty for a function that only receives events
	Success int           // the status of a response that is not an error
	Summary string        // one sentence for the API reference
	MaxAge  time.Duration // how long shared caches may store a success; 0: no-store
	Budget  time.Duration // the time limit of a request; 0: 4.5 s

	// Anonymous admits a request without a token to a handler that takes a Bearer. The
	// Token is then empty.
	Anonymous bool

	// Refuses lists the errors of the handler that do not follow from its input and its
	// dependencies. Only the API reference uses it.
	Refuses []apierror.Kind
}

// Limit returns the time limit of a request.
func (s Spec) Limit() time.Duration { return cmp.Or(s.Budget, budget) }

// A Handler implements a function. It must be safe for concurrent use. It must not leave a
// goroutine running, because the platform may freeze or end the process after the response.
type Handler[In, Out any] func(context.Context, In) (Out, error)

// An Endpoint is a function without its configuration.
type Endpoint struct {
	Spec
	In, Out reflect.Type
	Trigger Trigger
	bind    func(Spec, *config.Config) call
	event   func(Spec, *config.Config) call // nil: it receives no events
	limit   func(*config.Config) Allow
	early   bool

	// EventReceiver receives the events of the function. It is a field, so that functions
	// without events do not link the receiver.
	EventReceiver EventReceiver
}

// An EventReceiver returns the handler for the events of a process, given the function for
// each event type.
type EventReceiver func(cfg *config.Config, functions map[string]*Function) http.Handler

type call func(context.Context, *Request) (any, error)

// Define declares a function. newHandler reads the settings that the handler needs. Its
// reads are the only declaration of these needs. newHandler must do no other work.
//
// In is None, Bearer, or a struct of JSON members. A struct may embed Keyed and Client, and
// may have a method Validate(*apierror.Fields). If Validate needs settings, In also has a
// method Configure(*config.Config). Bind calls Configure once, on a blank input. Each input
// starts as a copy of that one.
func Define[In, Out any](spec Spec, newHandler func(*config.Config) Handler[In, Out]) Endpoint {
	return Endpoint{Spec: spec, In: reflect.TypeFor[In](), Out: reflect.TypeFor[Out](), bind: bind(newHandler)}
}

// On declares that a function also receives events. In is the data of the event, decoded
// as the body of a request is. Out is the data of the reply. Functions call receiver.On,
// which supplies the EventReceiver.
func On[In, Out any](e Endpoint, receiver EventReceiver, t Trigger, newHandler func(*config.Config) Handler[In, Out]) Endpoint {
	e.EventReceiver, e.Trigger, e.event = receiver, t, bind(newHandler)
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

// WithOutput returns an endpoint that describes its output as Out. It is for a handler that
// returns encoded JSON, because the type of such a value does not describe the members.
func WithOutput[Out any](e Endpoint) Endpoint {
	e.Out = reflect.TypeFor[Out]()
	return e
}

func bind[In, Out any](newHandler func(*config.Config) Handler[In, Out]) func(Spec, *config.Config) call {
	return func(spec Spec, cfg *config.Config) call {
		handle := newHandler(cfg)
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

// Bind configures the function. cfg collects missing and invalid settings. While cfg.Err
// returns an error, the function must not be invoked. Bind configures the event handler
// only if events is true.
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

// limited returns a call that counts requests toward a rate limit. If early is true, it
// counts all requests before it reads their input. Otherwise it counts requests with
// invalid input.
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

// A Function is an endpoint with its configuration.
type Function struct {
	Spec
	Trigger     Trigger
	call, event call
	log         *slog.Logger
}
