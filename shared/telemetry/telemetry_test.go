package telemetry_test

import (
	"regexp"
	"strings"
	"testing"

	"ticketing.com/auth/shared/telemetry"
)

const id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

func TestContinue(t *testing.T) {
	for _, c := range []struct {
		name, header string
		continued    bool
	}{
		{"a valid header is continued", "00-" + id + "-" + parent + "-01", true},
		{"a later version with more fields is continued", "01-" + id + "-" + parent + "-01-more", true},
		{"no header starts a trace", "", false},
		{"version ff is invalid", "ff-" + id + "-" + parent + "-01", false},
		{"version 00 ends after the flags", "00-" + id + "-" + parent + "-01-more", false},
		{"a later version has a separator after the flags", "01-" + id + "-" + parent + "-01more", false},
		{"upper case is invalid", "00-" + strings.ToUpper(id) + "-" + parent + "-01", false},
		{"an all-zero trace id is invalid", "00-" + strings.Repeat("0", 32) + "-" + parent + "-01", false},
		{"an all-zero parent id is invalid", "00-" + id + "-0000000000000000-01", false},
		{"a short header is invalid", "00-" + id, false},
		{"a line break cannot reach the log", "00-" + id[:31] + "\n-" + parent + "-01", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := telemetry.Continue(c.header)
			if got := tr.ID == id; got != c.continued {
				t.Errorf("continued = %v, want %v; trace %+v", got, c.continued, tr)
			}
			if !regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`).MatchString(tr.Traceparent()) || tr.Span == parent {
				t.Errorf("traceparent %q, want a valid one with a new span", tr.Traceparent())
			}
		})
	}
}
