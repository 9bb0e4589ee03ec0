//go:build linux

package main

import (
	"context"
	"strings"
	"testing"
)

// run rejects invalid arguments with one line before it changes anything. It prints
// nothing to stdout, because a shell evaluates that.
func TestRun_InvalidArguments(t *testing.T) {
	for args, c := range map[string]struct {
		code int
		want string
	}{
		"":                       {2, "no command is given"},
		"start":                  {2, "unknown command"},
		"up -bar":                {2, "flag provided but not defined"},
		"up now":                 {2, "unexpected argument"},
		"down -dir cluster":      {2, "must be an absolute path"},
		"down -dir /run/cluster": {2, "mounts its own /run"},
		"inside -dir /var/lib/ticketing-auth-nowhere":           {2, "internal command"},
		"status -dir /var/lib/ticketing-auth-nowhere":           {1, "the cluster is down"},
		"cold -dir /var/lib/ticketing-auth-nowhere":             {1, "the cluster is down"},
		"cold -times none -dir /var/lib/ticketing-auth-nowhere": {2, "invalid value"},
	} {
		var stdout, stderr strings.Builder
		code := run(context.Background(), strings.Fields(args), &stdout, &stderr)
		if up := strings.Contains(stderr.String(), "a cluster is up in another folder"); up && c.code == 1 {
			continue // a cluster of the user runs during the tests
		}
		if code != c.code || !strings.Contains(stderr.String(), c.want) || stdout.Len() > 0 {
			t.Errorf("%q: got exit code %d, stdout %q, stderr %q; want %d, no stdout, stderr with %q", args, code, stdout.String(), stderr.String(), c.code, c.want)
		}
	}
}
