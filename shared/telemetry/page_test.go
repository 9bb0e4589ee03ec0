package telemetry_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"ticketing.com/auth/shared/telemetry"
)

// infra/docs/telemetry.md lists exactly the metrics and the security events of the code.
func TestPage_ListsMetricsAndSecurityEvents(t *testing.T) {
	page, err := os.ReadFile("../../infra/docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	section := func(title string) string {
		_, after, _ := strings.Cut(string(page), "\n## "+title+"\n")
		text, _, _ := strings.Cut(after, "\n## ")
		return text
	}
	metrics := section("Metrics")
	for _, m := range telemetry.Metrics() {
		attribute := "none"
		if m.Attribute != "" {
			attribute = "`" + m.Attribute + "`"
		}
		row := fmt.Sprintf("| `%s` | %s | `%s` | %s | %s |\n", m.Name, m.Kind, m.Unit, attribute, m.About)
		if !strings.Contains(metrics, row) {
			t.Errorf("the page has no row\n%s", row)
		}
	}
	if got, want := strings.Count(metrics, "\n| `"), len(telemetry.Metrics()); got != want {
		t.Errorf("the page lists %d metrics, want %d", got, want)
	}
	events := section("Log schema")
	for _, e := range telemetry.SecurityEvents() {
		if !strings.Contains(events, "`"+string(e)+"`") {
			t.Errorf("the page does not list the security event %s", e)
		}
	}
}
