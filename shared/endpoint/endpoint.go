// Package endpoint defines the typed contract between transports and handlers. A
// function declares its endpoints, and the transports of package httpserver invoke them:
//
//	client → transport (package httpserver) → Bound.Invoke → handler
//
// The package does once the work that all functions share: limits, decoding,
// validation, panics, deadlines, encoding and the log line. A handler takes a typed input
// and returns a typed output or an error. It does not see HTTP and writes nothing.
//
// An input is a struct. Its fields come from the request by their tags: json (a member of
// the body), path (the {name} segment) or query. It embeds a Part for anything else, such
// as the verified identity (package identity). Define checks all of this and panics, so a
// mistake shows when the program or a test starts.
//
// Package httpserver does the routing.
package endpoint

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/events/event"
)

// A Function is a unit of deployment: one program, one image and one service, with its own
// secrets and its own rights in the database. The catalog, the manifests and the API
// reference are generated from its declaration.
type Function struct {
	Name      string // the folder, service and image: a DNS label
	Needs     []Need
	Endpoints []Endpoint // called by clients
	Receivers []Receiver // called by events
}

// Access states which clients may call an endpoint. Each endpoint must choose.
type Access uint8

// The kinds of access. Except for Public, the input embeds the verified identity.
const (
	undefined Access = iota
	Public           // the endpoint reads no token
	Optional         // a token must be valid, but the request may have none
	Required         // the request must have a valid token
	Service          // the request must have the credentials of a registered service
)

// A Spec describes an endpoint.
type Spec struct {
	// ID is the operation in the API reference. It may be empty for the only endpoint of a
	// function, whose name then takes its place.
	ID     string
	Method string // GET includes HEAD
	// Path is matched exactly. One segment may be {name}, and the input then has a field
	// with the tag path:"name".
	Path    string
	Access  Access
	Success int           // the status of a response that is not an error
	Summary string        // one sentence for the API reference
	MaxAge  time.Duration // how long shared caches may store a success; 0: no-store
	Budget  time.Duration // the time limit of a request; 0: 4.5 s
	// Internal is true for an endpoint that only services inside the cluster call. No ingress
	// and no gateway routes it.
	Internal bool

	// Refuses lists the errors of the handler that do not follow from its input and its
	// dependencies. Only the API reference uses it.
	Refuses []apierror.Kind
}

// Routed returns the endpoints that an ingress routes.
func (f Function) Routed() []Endpoint {
	return slices.DeleteFunc(slices.Clone(f.Endpoints), func(e Endpoint) bool { return e.Internal })
}

// Limit returns the time limit of a request.
func (s Spec) Limit() time.Duration { return cmp.Or(s.Budget, budget) }

// Limit returns the time limit of an event.
func (r Receiver) Limit() time.Duration { return cmp.Or(r.Budget, budget) }

// An Endpoint is a method and a path with a handler, without its configuration.
type Endpoint struct {
	Spec
	In, Out reflect.Type
	Limited string // the name of the rate limit of client addresses, or ""
	plan    *plan
	bind    bindFunc
	limit   func(*config.Config) Allow
	early   bool
}

// A Receiver is a handler for events of other services, without its configuration.
type Receiver struct {
	Types   []*event.Type
	Reply   *event.Type   // the type of the reply to a success; nil: no reply. If the output is a nil pointer, there is no reply
	Refusal *event.Type   // the type of the reply to rejected input, with the data apierror.Errors; nil: status 400
	Summary string        // one sentence for the event reference
	Budget  time.Duration // as in Spec; the time of other receivers of an event does not count
	// Outage is the longest time for which a dependency may be unavailable without the loss of an
	// event: the broker delivers it again for at least this time. 0: some minutes.
	Outage time.Duration
	// Sink is true for a receiver whose function can be the sink of other functions. If all
	// receivers of a process have it, the process accepts and ignores events of other types.
	Sink bool

	In, Out reflect.Type
	// Handler serves the events of a process. It is a field, so that functions without
	// events do not link the package that reads CloudEvents.
	Handler EventHandler
	bind    bindFunc
}

// An EventHandler returns the HTTP handler for the events of a process. receivers has the
// receivers of each event type.
type EventHandler func(cfg *config.Config, receivers map[string][]*Bound) http.Handler

type call func(context.Context, *Request) (any, error)

// A bindFunc returns the handler with its configuration and its time limit.
type bindFunc func(cfg *config.Config, budget time.Duration) call

// Define declares an endpoint. newHandler reads the settings that the handler needs, and
// does no other work. The platform may freeze or end the process after the response, so
// handle must not leave a goroutine running, except by a Later. It must be safe for concurrent
// use.
//
// If the input has a method Validate(*apierror.Fields), it runs after the decoding. If the
// input has a method Configure(*config.Config), Bind calls it once on a blank input, and
// each input starts as a copy of that one.
//
// Define panics if the input, the output and the spec do not fit together.
func Define[H, In, Out any](spec Spec, newHandler func(*config.Config) H, handle func(H, context.Context, In) (Out, error)) Endpoint {
	in, out := reflect.TypeFor[In](), reflect.TypeFor[Out]()
	p, err := newPlan(in)
	if err == nil {
		err = spec.check(p, out)
	}
	if err != nil {
		panic(fmt.Sprintf("endpoint %s %s: %v", spec.Method, spec.Path, err))
	}
	return Endpoint{Spec: spec, In: in, Out: out, plan: p, bind: bind(p, newHandler, handle)}
}

// On declares the handler of a receiver. In is the data of the event, decoded as the body of
// a request is. Out is the data of the reply. Functions call receiver.On, which supplies the
// EventHandler.
//
// The input may be the payload of the event types, or a struct with some of its members, which
// may embed parts such as Keyed. On panics if the input needs more than the data and the key of
// an event, if it may not be able to read the payload of a type, or if the output or the
// refusal is not the payload of its reply.
func On[H, In, Out any](r Receiver, newHandler func(*config.Config) H, handle func(H, context.Context, In) (Out, error)) Receiver {
	r.In, r.Out = reflect.TypeFor[In](), reflect.TypeFor[Out]()
	p, err := newPlan(r.In)
	if err == nil {
		err = r.check(p)
	}
	if err != nil {
		panic(fmt.Sprintf("receiver of %s: %v", r.names(), err))
	}
	r.bind = bind(p, newHandler, handle)
	return r
}

// An Allow counts a request and returns an API error if its client has reached a limit.
type Allow func(context.Context, Client) error

// A Limit is a rate limit of client addresses.
type Limit struct {
	Name string // in the API reference
	New  func(*config.Config) Allow
}

// LimitRequests returns an endpoint whose rate limit counts each request before its input is
// read, for an endpoint whose validation is expensive.
func LimitRequests(e Endpoint, limit Limit) Endpoint {
	e.Limited, e.limit, e.early = limit.Name, limit.New, true
	return e
}

// LimitInvalid returns an endpoint whose rate limit counts requests with invalid input. The
// handler counts the others.
func LimitInvalid(e Endpoint, limit Limit) Endpoint {
	e.Limited, e.limit, e.early = limit.Name, limit.New, false
	return e
}

// WithOutput returns an endpoint that describes its output as Out. It is for a handler that
// returns encoded JSON, because the type of such a value does not describe the members.
func WithOutput[Out any](e Endpoint) Endpoint {
	e.Out = reflect.TypeFor[Out]()
	return e
}

func bind[H, In, Out any](p *plan, newHandler func(*config.Config) H, handle func(H, context.Context, In) (Out, error)) bindFunc {
	return func(cfg *config.Config, budget time.Duration) call {
		var blank In
		p.configureParts(cfg, &blank)
		h := newHandler(cfg)
		if in, ok := any(&blank).(interface{ Configure(*config.Config) }); ok {
			in.Configure(cfg)
		}
		return func(ctx context.Context, r *Request) (any, error) {
			in := blank
			if err := p.read(ctx, r, &in); err != nil {
				r.invalid = true
				return nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, budget)
			defer cancel()
			out, err := handle(h, ctx, in)
			if err != nil {
				return nil, expired(ctx, err)
			}
			return out, nil
		}
	}
}

// A Bound is an endpoint or a receiver with its configuration.
type Bound struct {
	Spec                // Path is "event" for a receiver
	Sink           bool // of a receiver
	reply, refusal *event.Type
	function       string
	call           call
	log            *slog.Logger
}

// Bind configures an endpoint of a function. cfg collects missing and invalid settings.
// While cfg.Err returns an error, the endpoint must not be invoked.
func (e Endpoint) Bind(cfg *config.Config, function string) *Bound {
	b := &Bound{Spec: e.Spec, function: function, log: cfg.Log()}
	b.Budget = e.Limit()
	b.call = e.bind(cfg, b.Budget)
	if e.limit != nil {
		b.call = limited(b.Budget, e.limit(cfg), e.early, b.call)
	}
	return b
}

// Function returns the name of the function.
func (b *Bound) Function() string { return b.function }

// Bind configures a receiver of a function, as Endpoint.Bind does.
func (r Receiver) Bind(cfg *config.Config, function string) *Bound {
	spec := Spec{Path: "event", Success: http.StatusOK, Summary: r.Summary, Budget: r.Limit()}
	return &Bound{Spec: spec, Sink: r.Sink, reply: r.Reply, refusal: r.Refusal, function: function, call: r.bind(cfg, spec.Budget), log: cfg.Log()}
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
