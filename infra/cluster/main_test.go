//go:build linux

package main

import (
	"context"
	"strings"
	"testing"
)

// What is asked for wrongly is refused in a line, before anything is touched; and a shell
// that evaluates the output finds none.
func TestWhatIsRefused(t *testing.T) {
	for args, c := range map[string]struct {
		code int
		says string
	}{
		"":                       {2, "no command is given"},
		"start":                  {2, "unknown command"},
		"up -bar":                {2, "flag provided but not defined"},
		"up now":                 {2, "unexpected argument"},
		"down -dir cluster":      {2, "must be an absolute path"},
		"down -dir /run/cluster": {2, "inside, /run is another"},
		"inside -dir /var/lib/ticketing-auth-nowhere":           {2, "for up alone"},
		"status -dir /var/lib/ticketing-auth-nowhere":           {1, "the cluster is down"},
		"cold -dir /var/lib/ticketing-auth-nowhere":             {1, "the cluster is down"},
		"cold -times none -dir /var/lib/ticketing-auth-nowhere": {2, "invalid value"},
	} {
		var stdout, stderr strings.Builder
		code := run(context.Background(), strings.Fields(args), &stdout, &stderr)
		if up := strings.Contains(stderr.String(), "a cluster is up, of another folder"); up && c.code == 1 {
			continue // somebody's own, while the tests run
		}
		if code != c.code || !strings.Contains(stderr.String(), c.says) || stdout.Len() > 0 {
			t.Errorf("%s: %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
}
