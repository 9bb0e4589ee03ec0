package observe_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/infra/local/observe"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/telemetry"
)

func start(t *testing.T) (http.Handler, *telemetry.Telemetry) {
	t.Helper()
	cfg := config.New(func(string) (string, bool) { return "", false }, func(*slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }, time.Now)
	recorder, err := observe.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return observe.Handler(recorder, http.NotFoundHandler()), telemetry.FromConfig(cfg)
}

func get(t *testing.T, handler http.Handler, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body)
}

// The page shows a parent before its children, also the children that end after it.
func TestPage_ShowsTracesAndMetrics(t *testing.T) {
	handler, to := start(t)
	ctx, request := to.Serve(t.Context(), http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}})
	request.SetName("POST /api/users/signup")
	inner, function := to.Start(ctx, "signup", trace.SpanKindInternal)
	_, command := to.Start(inner, "insert users", trace.SpanKindClient)
	telemetry.End(command, true)
	_, delivery := to.Start(inner, "send event", trace.SpanKindProducer)
	telemetry.End(function, false)
	telemetry.End(request, false)
	telemetry.End(delivery, false)
	to.Count(ctx, telemetry.Mails, "sent")
	to.Count(ctx, telemetry.Mails, "sent")
	to.Observe(ctx, telemetry.OutboxAge, 1.5, "")
	to.Observe(ctx, telemetry.HashWait, 0.25, "")

	status, page := get(t, handler, http.MethodGet, observe.Path)
	if status != http.StatusOK {
		t.Fatalf("got %d, want 200", status)
	}
	rest := page
	for _, want := range []string{">POST /api/users/signup<", ">\u2003signup<", `<tr class="failed">`, ">\u2003\u2003insert users<", ">\u2003\u2003send event<",
		">auth.mails<", ">auth.outcome=sent<", ">2<", ">auth.outbox.age<", ">1.5<", ">auth.password_hash.wait.duration<", ">1 × 0.2500 s on average<"} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Fatalf("the page does not have %q in its place:\n%s", want, page)
		}
		rest = after
	}
}

func TestPage_KeepsLastTraces(t *testing.T) {
	handler, to := start(t)
	for i := range 60 {
		_, span := to.Serve(context.Background(), http.Header{})
		span.SetName(fmt.Sprintf("request %d.", i))
		telemetry.End(span, false)
	}
	_, page := get(t, handler, http.MethodGet, observe.Path)
	if strings.Contains(page, "request 9.") || strings.Index(page, "request 59.") > strings.Index(page, "request 10.") {
		t.Errorf("got a page without the 50 last traces, the newest first:\n%s", page)
	}
}

func TestHandler_Responses(t *testing.T) {
	handler, _ := start(t)
	for request, want := range map[string]int{
		"GET /observe": 200, "HEAD /observe": 200, "GET /observe/page.css": 200,
		"POST /observe": 405, "GET /observe/x": 404, "GET /observed": 404, "GET /": 404,
	} {
		method, path, _ := strings.Cut(request, " ")
		if got, _ := get(t, handler, method, path); got != want {
			t.Errorf("%s: got %d, want %d", request, got, want)
		}
	}
}
