package validate

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	network "k8s.io/api/networking/v1"
	eventing "knative.dev/eventing/pkg/apis/eventing/v1"
	networking "knative.dev/networking/pkg/apis/networking/v1alpha1"
	serving "knative.dev/serving/pkg/apis/serving/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// Each overlay with an example routes /api/tickets to the Knative Service, sends it the event of
// a deleted user, and binds it to the broker.
func TestExamples_RoutesAndEvents(t *testing.T) {
	const name, host = "tickets", "tickets.ticketing.svc.cluster.local"
	tested := map[string]bool{}
	for _, overlay := range overlays {
		_, example, extended := strings.Cut(overlay, "+")
		if !extended {
			continue
		}
		tested[example] = true
		routed := map[string]bool{}
		for _, r := range all[gateway.HTTPRoute](t, overlay, "HTTPRoute", "gateway.networking.k8s.io") {
			for _, rule := range r.Spec.Rules {
				for _, m := range rule.Matches {
					for _, f := range rule.Filters {
						routed[*m.Path.Value+" "+string(*f.URLRewrite.Hostname)] = true
					}
				}
			}
		}
		for _, i := range all[networking.Ingress](t, overlay, "Ingress", "networking.internal.knative.dev") {
			for _, p := range i.Spec.Rules[0].HTTP.Paths {
				routed[p.Path+" "+p.RewriteHost] = true
			}
		}
		if !routed["/api/tickets "+host] {
			t.Errorf("%s: got the routes %v, want /api/tickets to %s", overlay, slices.Sorted(maps.Keys(routed)), host)
		}
		bound := false
		for _, s := range all[serving.Service](t, overlay, "Service", "serving.knative.dev") {
			bound = bound || s.Name == name && s.Labels["ticketing.com/publishes-events"] == "true"
		}
		if !bound {
			t.Errorf("%s: the Knative Service %s lacks the label of the SinkBinding", overlay, name)
		}
		if !slices.ContainsFunc(all[eventing.Trigger](t, overlay, "Trigger", "eventing.knative.dev"), func(trigger eventing.Trigger) bool {
			return trigger.Spec.Subscriber.Ref.Name == name && trigger.Spec.Filter.Attributes["type"] == "com.ticketing.user.deleted.v1"
		}) {
			t.Errorf("%s: no Trigger sends com.ticketing.user.deleted.v1 to %s", overlay, name)
		}
	}
	if len(tested) != 2 {
		t.Errorf("got the examples %v, want two", tested)
	}
}

// The example reads the revocation feed through the internal gateway. So its pods may connect to the
// namespace from which the gateway connects to the functions.
func TestExamples_ReachRevocationFeed(t *testing.T) {
	tested := 0
	for _, overlay := range overlays {
		if !strings.Contains(overlay, "+") {
			continue
		}
		gateway, allowed := "", []string{}
		for _, p := range all[network.NetworkPolicy](t, overlay, "NetworkPolicy", "networking.k8s.io") {
			if p.Name == "functions" {
				gateway = p.Spec.Ingress[0].From[1].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"]
			}
			if p.Name == "tickets" {
				for _, e := range p.Spec.Egress {
					if s := e.To[0].NamespaceSelector; s != nil && len(e.Ports) == 0 {
						allowed = append(allowed, s.MatchLabels["kubernetes.io/metadata.name"])
					}
				}
			}
		}
		if gateway == "" || !slices.Equal(allowed, []string{gateway}) {
			t.Errorf("%s: the pods may connect to the namespaces %v, want %q", overlay, allowed, gateway)
		}
		for _, s := range all[serving.Service](t, overlay, "Service", "serving.knative.dev") {
			if s.Name != "tickets" {
				continue
			}
			tested++
			env := map[string]string{}
			for _, e := range s.Spec.Template.Spec.Containers[0].Env {
				env[e.Name] = e.Value
			}
			if got, want := env["REVOCATIONS_URL"], "http://revocations.ticketing.svc.cluster.local/api/users/revocations"; got != want {
				t.Errorf("%s: got REVOCATIONS_URL %q, want %q", overlay, got, want)
			}
		}
	}
	if tested < 4 {
		t.Errorf("tested %d overlays, want four at least", tested)
	}
}

// The skaffold.yaml of an example builds exactly the image in its manifests, and names overlays
// that exist.
func TestExamples_SkaffoldBuildsImage(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/skaffold.yaml")
	if err != nil || len(files) != 2 {
		t.Fatalf("got the files %v (%v), want two", files, err)
	}
	for _, file := range files {
		folder := filepath.Dir(file)
		written, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var s skaffoldYAML
		if err := yaml.UnmarshalStrict(written, &s); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if s.APIVersion != "skaffold/v4beta14" || len(s.Build.Artifacts) != 1 {
			t.Fatalf("%s: got %s with %d artifacts, want skaffold/v4beta14 with one", file, s.APIVersion, len(s.Build.Artifacts))
		}
		artifact := s.Build.Artifacts[0]
		used := append(slices.Clone(artifact.Ko.Dependencies.Paths), s.Manifests.Kustomize.Paths...)
		if artifact.Docker.Dockerfile != "" {
			used = append(used, filepath.Join(artifact.Context, artifact.Docker.Dockerfile))
		}
		kustomized := s.Manifests.Kustomize.Paths
		for _, profile := range s.Profiles {
			for _, p := range profile.Patches {
				if to, is := p.Value.(string); is {
					kustomized = append(kustomized, to)
				}
			}
		}
		for _, p := range append(used, kustomized...) {
			if found, err := filepath.Glob(filepath.Join(folder, p)); err != nil || len(found) == 0 {
				t.Errorf("%s: %s names no file", file, p)
			}
		}
		for _, p := range kustomized {
			var images []string
			for _, r := range kustomize(t, filepath.Join(folder, p)).Resources() {
				for _, m := range regexp.MustCompile(`image: (\S+)`).FindAllStringSubmatch(r.MustYaml(), -1) {
					images = append(images, m[1])
				}
			}
			if !slices.Equal(images, []string{artifact.Image}) {
				t.Errorf("%s: got the images %v in %s, want %s", file, images, p, artifact.Image)
			}
		}
		if len(kustomized) != 2 {
			t.Errorf("%s: got the overlays %v, want two", file, kustomized)
		}
	}
}
