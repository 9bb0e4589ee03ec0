package build

import (
	"os"
	"strings"
	"testing"
)

func TestKubernetesVersion_MatchesGoMod(t *testing.T) {
	mod, err := os.ReadFile("kubernetes/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "require k8s.io/kubernetes " + kubernetesVersion; !strings.Contains(string(mod), want) {
		t.Errorf("go.mod does not contain %q", want)
	}
	if minor := strings.Split(kubernetesVersion, ".")[1]; !strings.Contains(modules()[0].Flags[0], "gitMinor="+minor+" ") {
		t.Errorf("got flags %q, want the minor version %s", modules()[0].Flags[0], minor)
	}
}

func TestKnativeVersions_Agree(t *testing.T) {
	pins := map[string]string{}
	for _, part := range []string{"serving", "eventing"} {
		mod, err := os.ReadFile(part + "/go.mod")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(mod)) {
			if words := strings.Fields(line); len(words) > 1 && words[0] == "knative.dev/pkg" {
				pins[part] = words[1]
			}
		}
	}
	if pins["serving"] == "" || pins["serving"] != pins["eventing"] {
		t.Errorf("got versions %v of knative.dev/pkg, want the same for serving and eventing", pins)
	}
}

func TestModules_HaveGoMod(t *testing.T) {
	for _, m := range modules() {
		for _, file := range []string{"go.mod", "go.sum"} {
			if _, err := os.Stat(m.Name + "/" + file); err != nil {
				t.Errorf("%s: %v", m.Title, err)
			}
		}
	}
}
