//go:build linux

package system

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ticketing.com/auth/shared/testing/gobuild"
)

// Package system builds every image that the manifests of the overlay name.
func TestPackages_CoverManifests(t *testing.T) {
	root, err := gobuild.Repository()
	if err != nil {
		t.Fatal(err)
	}
	references := map[string]string{"ko://" + modulePath + "infra/devdb": "dev.local/mongod:1", "ko://" + ticketsModule: "dev.local/tickets:1"}
	for _, p := range packages() {
		references["ko://"+modulePath+p] = "dev.local/" + filepath.Base(p) + ":1"
	}
	for _, file := range []string{"base/functions.yaml", "eventing/functions.yaml", "migrate/job.yaml", "overlays/e2e/mongod.yaml", "for-tests/listener.yaml", "../examples/tickets/k8s/local-tickets/service.yaml"} {
		manifest, err := os.ReadFile(filepath.Join(root, "infra", "knative", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		resolved, err := resolve(string(manifest), references)
		if err != nil || strings.Contains(resolved, "ko://") || !strings.Contains(resolved, "image: dev.local/") {
			t.Errorf("%s: got error %v and %s, want only dev.local images", file, err, resolved)
		}
	}
}

// A function that exists before its sink gets a revision without one.
func TestSinkManifests(t *testing.T) {
	root, err := gobuild.Repository()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, file := range []string{"base/functions.yaml", "eventing/broker.yaml", "eventing/triggers.yaml"} {
		manifest, err := os.ReadFile(filepath.Join(root, "infra", "knative", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(manifest))
	}
	first := sinkManifests(strings.Join(all, "\n---\n"))
	for kind, want := range map[string]int{"Broker": 1, "SinkBinding": 1, "Service": 0, "Trigger": 0} {
		if got := strings.Count("\n"+first, "\nkind: "+kind+"\n"); got != want {
			t.Errorf("got %d objects of kind %s, want %d", got, kind, want)
		}
	}
}

func TestResolve_UnknownImage(t *testing.T) {
	if _, err := resolve("image: ko://"+modulePath+"infra/nothing", nil); err == nil || !strings.Contains(err.Error(), "infra/nothing") {
		t.Errorf("got error %v, want one with %q", err, "infra/nothing")
	}
}
