package grpcbearer_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"ticketing.com/auth/shared/bearer"
	"ticketing.com/auth/shared/bearer/bearertest"
	"ticketing.com/auth/shared/bearer/grpcbearer"
)

// A server reports the user of a call in the header user.
type server struct {
	health.UnimplementedHealthServer
}

func header(ctx context.Context) metadata.MD {
	claims, ok := bearer.FromContext(ctx)
	return metadata.Pairs("user", fmt.Sprint(claims.Subject, " ", ok))
}

func (server) Check(ctx context.Context, _ *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	return &health.HealthCheckResponse{}, grpc.SetHeader(ctx, header(ctx))
}

func (server) Watch(_ *health.HealthCheckRequest, stream grpc.ServerStreamingServer[health.HealthCheckResponse]) error {
	return stream.SetHeader(header(stream.Context()))
}

// serve returns a client of a server with the interceptor.
func serve(t *testing.T, auth *grpcbearer.Interceptor) health.HealthClient {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	s := grpc.NewServer(grpc.UnaryInterceptor(auth.Unary), grpc.StreamInterceptor(auth.Stream))
	health.RegisterHealthServer(s, server{})
	go s.Serve(listener)
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient("passthrough:///test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return health.NewHealthClient(conn)
}

// render returns the user, or the error of a call with its trailers.
func render(header, trailer metadata.MD, err error) string {
	if err == nil {
		return strings.Join(header.Get("user"), "")
	}
	s := status.Convert(err)
	return strings.TrimSpace(fmt.Sprint(s.Code(), " ", s.Message(), " ", strings.Join(append(trailer.Get("www-authenticate"), trailer.Get("retry-after")...), " ")))
}

func unary(ctx context.Context, c health.HealthClient) string {
	var header, trailer metadata.MD
	_, err := c.Check(ctx, &health.HealthCheckRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
	return render(header, trailer, err)
}

func streamed(ctx context.Context, c health.HealthClient) string {
	stream, err := c.Watch(ctx, &health.HealthCheckRequest{})
	if err != nil {
		return err.Error()
	}
	header, err := stream.Header()
	if err != nil {
		return err.Error()
	}
	if _, err = stream.Recv(); err == io.EOF {
		err = nil
	}
	return render(header, stream.Trailer(), err)
}

func TestNew_InvalidKey(t *testing.T) {
	for _, key := range []string{"", "/", "//", "tickets.Tickets/", "/tickets.Tickets", "/tickets.Tickets/List/"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("the key %q: New does not panic", key)
				}
			}()
			grpcbearer.New(nil, grpcbearer.Require(), map[string]grpcbearer.Rule{key: grpcbearer.Optional()})
		}()
	}
}

func TestInterceptor(t *testing.T) {
	auth := bearertest.New(t)
	const (
		none    = "Unauthenticated A bearer token is needed. Bearer"
		invalid = `Unauthenticated The token is not valid. Bearer error="invalid_token"`
	)
	valid := "Bearer " + auth.Token()
	unavailable := auth.Config()
	unavailable.Keys, unavailable.KeysURL, unavailable.Log = "", auth.URL+"/none", slog.New(slog.DiscardHandler)
	down, err := bearer.New(unavailable)
	if err != nil {
		t.Fatal(err)
	}
	v := auth.Verifier()
	for _, c := range []struct {
		name          string
		auth          *grpcbearer.Interceptor
		authorization []string
		want          string
	}{
		{"no token", grpcbearer.New(v, grpcbearer.Require(), nil), nil, none},
		{"another scheme", grpcbearer.New(v, grpcbearer.Require(), nil), []string{"Basic YQ=="}, none},
		{"an invalid token", grpcbearer.New(v, grpcbearer.Require(), nil), []string{"Bearer x"}, invalid},
		{"two tokens", grpcbearer.New(v, grpcbearer.Require(), nil), []string{valid, valid}, invalid},
		{"a valid token", grpcbearer.New(v, grpcbearer.Require(), nil), []string{valid}, "65f1c0ffee true"},
		{"the zero value of a rule", grpcbearer.New(v, grpcbearer.Rule{}, nil), nil, none},
		{"optional: no token", grpcbearer.New(v, grpcbearer.Optional(), nil), nil, " false"},
		{"optional: an invalid token", grpcbearer.New(v, grpcbearer.Optional(), nil), []string{"Bearer x"}, invalid},
		{"optional: a valid token", grpcbearer.New(v, grpcbearer.Optional(), nil), []string{valid}, "65f1c0ffee true"},
		{"a missing role", grpcbearer.New(v, grpcbearer.Require(bearer.Roles("admin")), nil), []string{valid},
			`PermissionDenied You are not allowed to do this. Bearer error="insufficient_scope"`},
		{"a lower level", grpcbearer.New(v, grpcbearer.Require(bearer.Level("aal2"), bearer.Fresh(time.Minute)), nil), []string{valid},
			`Unauthenticated You must sign in again for this. Bearer error="insufficient_user_authentication", acr_values="aal2", max_age="60"`},
		{"no keys", grpcbearer.New(down, grpcbearer.Require(), nil), []string{valid},
			"Unavailable The service is unavailable. Try again shortly. 5"},
		{"the rule of a service", grpcbearer.New(v, grpcbearer.Require(), map[string]grpcbearer.Rule{
			"/grpc.health.v1.Health/": grpcbearer.Optional(),
		}), nil, " false"},
		{"the rules of methods", grpcbearer.New(v, grpcbearer.Optional(), map[string]grpcbearer.Rule{
			"/grpc.health.v1.Health/":      grpcbearer.Optional(),
			"/grpc.health.v1.Health/Check": grpcbearer.Require(),
			"/grpc.health.v1.Health/Watch": grpcbearer.Require(),
		}), nil, none},
		{"the rule of another service", grpcbearer.New(v, grpcbearer.Require(), map[string]grpcbearer.Rule{
			"/grpc.health.v1.Heal/": grpcbearer.Optional(),
		}), nil, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := serve(t, c.auth)
			ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": c.authorization})
			if got := unary(ctx, client); got != c.want {
				t.Errorf("unary: got %q, want %q", got, c.want)
			}
			if got := streamed(ctx, client); got != c.want {
				t.Errorf("stream: got %q, want %q", got, c.want)
			}
		})
	}
}

func TestInterceptor_SignOut(t *testing.T) {
	auth := bearertest.New(t)
	client := serve(t, grpcbearer.New(auth.Verifier(), grpcbearer.Require(), nil))
	raw := auth.Token(func(c *bearer.Claims) { c.Session = "5e55" })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+raw)
	if got, want := unary(ctx, client), "65f1c0ffee true"; got != want {
		t.Errorf("before: got %q, want %q", got, want)
	}
	auth.Revoke("5e55")
	if got, want := unary(ctx, client), `Unauthenticated The token is not valid. Bearer error="invalid_token"`; got != want {
		t.Errorf("after: got %q, want %q", got, want)
	}
}
