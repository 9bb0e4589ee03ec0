package refresh_test

import (
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/functions/refresh"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/testing/otlptest"
)

// Replays, a reuse and a rate limit are in the metrics. The last two are security events in the log.
func TestRefresh_Telemetry(t *testing.T) {
	t.Parallel()
	collector := otlptest.New(t)
	f := endpointtest.New(t, refresh.Function, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL, "RATE_LIMIT_REFRESH=5/1h")
	g := f.Given(t, "ann@example.com", "a password")
	next := f.Do(t, exchange(g.RefreshToken)).Grant(t)
	f.Do(t, exchange(g.RefreshToken)).Grant(t)
	f.Do(t, exchange(next.RefreshToken)).Grant(t)
	f.Clock.Advance(3 * time.Minute)
	if a := f.Do(t, exchange(g.RefreshToken)); a.Status != http.StatusUnauthorized {
		t.Fatalf("a used token: got %d, want 401", a.Status)
	}
	for range 2 {
		f.Do(t, exchange("x"))
	}
	f.Flush(t)
	for name, want := range map[string]map[string]float64{
		"auth.refreshes auth.outcome":         {"rotated": 2, "replayed": 1, "reused": 1},
		"auth.sessions.ended auth.reason":     {"theft": 1},
		"auth.rate_limit.refusals auth.limit": {"refresh": 1},
	} {
		metric, attribute, _ := strings.Cut(name, " ")
		if got := collector.Sum(t, metric, attribute); !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", metric, got, want)
		}
	}
	for _, want := range []string{
		`"status":401,"outcome":"refused","security":"session.theft","user":"` + g.User.ID + `","network":"203.0.113.0/24"`,
		`"status":429,"outcome":"refused","security":"limit.reached","network":"203.0.113.0/24"`,
	} {
		if line := withoutTime(f.Logs()); !strings.Contains(line, want) {
			t.Errorf("the log has no %s:\n%s", want, line)
		}
	}
}

// withoutTime returns log lines without the duration of each request.
func withoutTime(log string) string {
	return regexp.MustCompile(`,"ms":[0-9.e-]+|,"error":"[^"]*"`).ReplaceAllString(log, "")
}
