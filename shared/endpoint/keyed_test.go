package endpoint_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
)

// Functions in one store do not share keys. The keys that signup and signout have stored stay valid.
func TestKeyed_DependsOnFunction(t *testing.T) {
	cfg := config.New(func(string) (string, bool) { return "", false }, func(*slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }, time.Now)
	type input struct{ endpoint.Keyed }
	key := func(function string, r endpoint.Request) (key string) {
		t.Helper()
		e := endpoint.Define(endpoint.Spec{Method: "POST", Path: "/x", Access: endpoint.Public, Success: 200},
			func(*config.Config) struct{} { return struct{}{} },
			func(_ struct{}, _ context.Context, in input) (string, error) { key = in.Key; return "", nil })
		if got := e.Bind(cfg, function).Invoke(t.Context(), &r); got.Status != 200 {
			t.Fatalf("got %d %s, want 200", got.Status, got.Body)
		}
		return key
	}
	event := endpoint.Request{Key: "aaaa"}
	client := endpoint.Request{IdempotencyKey: []string{"order-7"}}
	for _, function := range []string{"signup", "signout"} {
		if got := key(function, event); got != "aaaa" {
			t.Errorf("%s: got the key %s of an event, want that of earlier versions", function, got)
		}
		if got, want := key(function, client), "91456c0ec157da4fe4fade9800882ad2"; got != want {
			t.Errorf("%s: got the key %s of a request, want %s as in earlier versions", function, got, want)
		}
	}
	for name, r := range map[string]endpoint.Request{"an event": event, "a request": client} {
		one, other := key("one", r), key("other", r)
		if one == other || one == key("signup", r) || one != key("one", r) || len(one) != 32 {
			t.Errorf("%s: got the keys %s and %s, want a key of its own for each function", name, one, other)
		}
	}
	if got := key("one", endpoint.Request{}); got != "" {
		t.Errorf("got the key %s of a request without one, want none", got)
	}
}
