// Package grpcbearer verifies the access tokens of the platform in a gRPC server. It does for gRPC
// what the middleware of package bearer does for net/http:
//
//	auth := grpcbearer.New(v, grpcbearer.Require(), map[string]grpcbearer.Rule{
//		"/tickets.Tickets/Refund":   grpcbearer.Require(bearer.Roles("admin")),
//		"/grpc.health.v1.Health/":   grpcbearer.Optional(),
//	})
//	grpc.NewServer(grpc.UnaryInterceptor(auth.Unary), grpc.StreamInterceptor(auth.Stream))
//
// The client sends the token in the metadata authorization, as "Bearer …". A method reads the user
// from bearer.FromContext. A refused call has the code Unauthenticated, PermissionDenied or
// Unavailable. Its trailers have www-authenticate and retry-after, as the headers of HTTP.
//
// A stream is checked once, at its start. So end a long stream when its token expires.
//
// The package is a module of its own, so that services without gRPC do not require it.
package grpcbearer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"ticketing.com/auth/shared/bearer"
)

// A Rule is the condition of a method on the tokens of its calls. The zero value is Require().
type Rule struct {
	optional bool
	checks   []bearer.Check
}

// Optional admits a call without a token, and refuses an invalid token.
func Optional() Rule { return Rule{optional: true} }

// Require admits only calls with a valid token that all checks accept.
func Require(checks ...bearer.Check) Rule { return Rule{checks: checks} }

// An Interceptor applies the rules to every call of a server. It is safe for concurrent use.
type Interceptor struct {
	verifier *bearer.Verifier
	standard Rule
	rules    map[string]Rule
}

// New returns an interceptor. The keys of rules are full methods, such as /tickets.Tickets/List, or
// services, such as /tickets.Tickets/. The standard rule applies to all other methods. New panics
// on a key of another form: it would protect nothing.
func New(v *bearer.Verifier, standard Rule, rules map[string]Rule) *Interceptor {
	for key := range rules {
		if service, _, ok := strings.Cut(strings.TrimPrefix(key, "/"), "/"); !ok || service == "" || !strings.HasPrefix(key, "/") || strings.Count(key, "/") != 2 {
			panic(fmt.Sprintf("grpcbearer: the key %q is no method and no service: it must be /service/method or /service/", key))
		}
	}
	return &Interceptor{v, standard, rules}
}

// Unary is a grpc.UnaryServerInterceptor.
func (i *Interceptor) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, trailer, err := i.authenticate(ctx, info.FullMethod)
	if err != nil {
		grpc.SetTrailer(ctx, trailer) // an error means that the call has ended
		return nil, err
	}
	return next(ctx, request)
}

// Stream is a grpc.StreamServerInterceptor.
func (i *Interceptor) Stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, trailer, err := i.authenticate(stream.Context(), info.FullMethod)
	if err != nil {
		stream.SetTrailer(trailer)
		return err
	}
	return next(server, &authenticated{stream, ctx})
}

// authenticated is a stream with the claims in its context.
type authenticated struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *authenticated) Context() context.Context { return s.ctx }

// authenticate returns the context of the method, or the error and the trailers of the call.
func (i *Interceptor) authenticate(ctx context.Context, method string) (context.Context, metadata.MD, error) {
	rule, ok := i.rules[method]
	if !ok {
		if rule, ok = i.rules[method[:strings.LastIndexByte(method, '/')+1]]; !ok {
			rule = i.standard
		}
	}
	claims, err := i.verifier.Verify(ctx, metadata.ValueFromIncomingContext(ctx, "authorization"), rule.checks...)
	switch {
	case err == nil:
		return bearer.NewContext(ctx, claims), nil, nil
	case rule.optional && err == bearer.ErrNoToken:
		return ctx, nil, nil
	}
	e, ok := errors.AsType[*bearer.Error](err)
	if !ok {
		return ctx, nil, status.Error(codes.Internal, "Something went wrong.")
	}
	trailer := metadata.MD{}
	if e.Challenge != "" {
		trailer.Set("www-authenticate", e.Challenge)
	}
	if e.RetryAfter > 0 {
		trailer.Set("retry-after", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	return ctx, trailer, status.Error(code(e.Status), e.Message)
}

func code(httpStatus int) codes.Code {
	switch httpStatus {
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	}
	return codes.Unavailable
}
