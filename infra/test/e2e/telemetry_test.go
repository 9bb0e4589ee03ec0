package e2e_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketing.com/auth/infra/lambda/lambdatest"
	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/testing/otlptest"
)

// On Lambda the collector has the spans and the metrics of a request before its response arrives.
func TestTelemetry_LambdaExportsBeforeResponse(t *testing.T) {
	c := otlptest.New(t)
	l := startLambda(t, "jwks", append(start(t, mongotest.URI(t)).env["jwks"], "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL)...)
	send(t, lambdatest.HTTPAPI(l.Runtime), jwksRequest(t))
	if names := c.Names(); !slices.Contains(names, "GET /.well-known/jwks.json") || !slices.Contains(names, "jwks") {
		t.Errorf("got the spans %v, want those of the transport and the handler", names)
	}
	if got := c.Sum(t, "faas.init_duration", "")[""]; got != 1 {
		t.Errorf("got %v values of faas.init_duration, want 1", got)
	}
}

// A collector that is down or hangs delays neither the response nor the shutdown, and the log says so.
func TestTelemetry_CollectorUnavailable(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer hanging.Close()
	defer close(hang)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	keys := start(t, mongotest.URI(t)).env["jwks"]
	for name, url := range map[string]string{"it hangs": hanging.URL, "it is down": down.URL} {
		t.Run(name, func(t *testing.T) {
			env := append(slices.Clone(keys), "OTEL_EXPORTER_OTLP_ENDPOINT="+url)
			p := e2e.Start(t, "jwks", env...)
			if r, err := http.Get(p.URL + "/.well-known/jwks.json"); err != nil || r.StatusCode != http.StatusOK {
				t.Errorf("got %v %v, want 200", r, err)
			}
			if code := p.Signal(syscall.SIGTERM); code != 0 || !strings.Contains(p.Logs(), `"msg":"telemetry was not exported"`) {
				t.Errorf("got exit code %d, want 0 and a log line about the export:\n%s", code, p.Logs())
			}
			l := startLambda(t, "jwks", env...)
			began := time.Now()
			send(t, lambdatest.HTTPAPI(l.Runtime), jwksRequest(t))
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("the response took %s, want about 300 ms", took)
			}
			l.Signal(os.Kill)
		})
	}
}

// Without a valid URL of a collector the process does not start.
func TestTelemetry_InvalidEndpoint(t *testing.T) {
	for _, url := range []string{"collector:4318", "grpc://collector", "http://", "http://user:secret@collector", "http://collector?x"} {
		code, got := e2e.MustFail(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + url, "VERIFYING_KEYS={}"}, "jwks")
		if code != 2 || !strings.Contains(got, "OTEL_EXPORTER_OTLP_ENDPOINT must be the URL of a collector without credentials") || strings.Contains(got, "secret") {
			t.Errorf("%s: got code %d and %q", url, code, got)
		}
	}
}

func jwksRequest(t *testing.T) *http.Request {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example/.well-known/jwks.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
