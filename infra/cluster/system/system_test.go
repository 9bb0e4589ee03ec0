//go:build linux

package system

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ticketing.com/auth/shared/built"
)

// What the overlay's manifests name is what is built.
func TestEveryImageOfTheManifestsIsBuilt(t *testing.T) {
	root, err := built.Repository()
	if err != nil {
		t.Fatal(err)
	}
	references := map[string]string{"ko://" + ours + "infra/mongod": "dev.local/mongod:1"}
	for _, p := range packages() {
		references["ko://"+ours+p] = "dev.local/" + filepath.Base(p) + ":1"
	}
	for _, file := range []string{"base/functions.yaml", "eventing/functions.yaml", "migrate/job.yaml", "overlays/e2e/mongod.yaml", "overlays/e2e/listener.yaml"} {
		manifest, err := os.ReadFile(filepath.Join(root, "infra", "knative", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		resolved, err := resolve(string(manifest), references)
		if err != nil || strings.Contains(resolved, "ko://") || !strings.Contains(resolved, "image: dev.local/") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestAnUnknownImageIsAnError(t *testing.T) {
	if _, err := resolve("image: ko://"+ours+"infra/nothing", nil); err == nil || !strings.Contains(err.Error(), "infra/nothing") {
		t.Errorf("got %v", err)
	}
}
