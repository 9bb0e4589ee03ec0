package validate

import (
	"maps"
	"slices"
	"testing"

	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	network "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	eventing "knative.dev/eventing/pkg/apis/eventing/v1"
	sources "knative.dev/eventing/pkg/apis/sources/v1"
	serving "knative.dev/serving/pkg/apis/serving/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	gatewaybeta "sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/yaml"
)

// all returns the objects of one type in an overlay.
func all[T any](t *testing.T, overlay, kind, group string) (found []T) {
	t.Helper()
	for _, r := range built(t, overlay).Resources() {
		if r.GetKind() != kind || r.GetGvk().Group != group {
			continue
		}
		var o T
		if err := yaml.UnmarshalStrict([]byte(r.MustYaml()), &o); err != nil {
			t.Fatal(err)
		}
		found = append(found, o)
	}
	return found
}

// pods returns the labels of each pod of an overlay, including labels that Knative adds.
func pods(t *testing.T, overlay string) (found []map[string]string) {
	t.Helper()
	for _, s := range all[serving.Service](t, overlay, "Service", "serving.knative.dev") {
		l := maps.Clone(s.Spec.Template.Labels)
		l["serving.knative.dev/service"] = s.Name
		found = append(found, l)
	}
	for _, s := range all[apps.StatefulSet](t, overlay, "StatefulSet", "apps") {
		found = append(found, s.Spec.Template.Labels)
	}
	for _, d := range all[apps.Deployment](t, overlay, "Deployment", "apps") {
		found = append(found, d.Spec.Template.Labels)
	}
	for _, j := range all[batch.Job](t, overlay, "Job", "batch") {
		found = append(found, j.Spec.Template.Labels)
	}
	for _, b := range all[eventing.Broker](t, overlay, "Broker", "eventing.knative.dev") {
		if b.Annotations[eventing.BrokerClassAnnotationKey] == "RabbitMQBroker" { // its pods are in its own namespace
			found = append(found, map[string]string{"eventing.knative.dev/broker": b.Name})
		}
	}
	return found
}

// A cluster accepts a selector that matches no resource. Its rule then has no effect.
func TestOverlays_SelectorsMatch(t *testing.T) {
	// the namespaces of the cluster: the ingress, Knative, DNS, RabbitMQ, Prometheus
	namespaces := []string{"kourier-system", "knative-serving", "knative-eventing", "kube-system", "ticketing", "traefik", "rabbitmq", "observability"}
	for _, overlay := range overlays {
		candidates := pods(t, overlay)
		match := func(where string, selector *meta.LabelSelector, among []map[string]string) {
			t.Helper()
			s, err := meta.LabelSelectorAsSelector(selector)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(among, func(l map[string]string) bool { return s.Matches(labels.Set(l)) }) {
				t.Errorf("%s: the selector %[3]v of %[2]s matches no resource", overlay, where, s)
			}
		}
		for _, p := range all[network.NetworkPolicy](t, overlay, "NetworkPolicy", "networking.k8s.io") {
			match(p.Name, &p.Spec.PodSelector, candidates)
			var peers []network.NetworkPolicyPeer
			for _, rule := range p.Spec.Ingress {
				peers = append(peers, rule.From...)
			}
			for _, rule := range p.Spec.Egress {
				peers = append(peers, rule.To...)
			}
			for _, peer := range peers {
				if peer.PodSelector != nil {
					match(p.Name, peer.PodSelector, candidates)
				}
				if peer.NamespaceSelector != nil {
					name := peer.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"]
					if !slices.Contains(namespaces, name) {
						t.Errorf("%s: %s refers to the unknown namespace %q", overlay, p.Name, name)
					}
				}
			}
		}
		for _, s := range all[core.Service](t, overlay, "Service", "") {
			match("the Service "+s.Name, &meta.LabelSelector{MatchLabels: s.Spec.Selector}, candidates)
		}
		for _, b := range all[policy.PodDisruptionBudget](t, overlay, "PodDisruptionBudget", "policy") {
			match("the budget "+b.Name, b.Spec.Selector, candidates)
		}
		var services []map[string]string
		for _, s := range all[serving.Service](t, overlay, "Service", "serving.knative.dev") {
			services = append(services, s.Labels)
		}
		for _, b := range all[sources.SinkBinding](t, overlay, "SinkBinding", "sources.knative.dev") {
			match("the binding "+b.Name, b.Spec.Subject.Selector, services)
		}
	}
}

// A route into another namespace works only with a ReferenceGrant in that namespace.
func TestOverlays_RoutesAreGranted(t *testing.T) {
	routes := 0
	for _, overlay := range overlays {
		granted := map[string]bool{}
		for _, g := range all[gatewaybeta.ReferenceGrant](t, overlay, "ReferenceGrant", "gateway.networking.k8s.io") {
			for _, from := range g.Spec.From {
				for _, to := range g.Spec.To {
					granted[string(from.Namespace)+" to "+g.Namespace+"/"+string(*to.Name)] = true
				}
			}
		}
		gateways := map[string]bool{}
		for _, g := range all[gateway.Gateway](t, overlay, "Gateway", "gateway.networking.k8s.io") {
			for _, l := range g.Spec.Listeners {
				gateways[g.Namespace+"/"+g.Name+"/"+string(l.Name)] = true
				gateways[g.Namespace+"/"+g.Name+"/"] = true
			}
		}
		for _, r := range all[gateway.HTTPRoute](t, overlay, "HTTPRoute", "gateway.networking.k8s.io") {
			for _, p := range r.Spec.ParentRefs {
				to := r.Namespace + "/" + string(p.Name) + "/"
				if p.Namespace != nil {
					to = string(*p.Namespace) + "/" + string(p.Name) + "/"
				}
				if p.SectionName != nil {
					to += string(*p.SectionName)
				}
				if !gateways[to] {
					t.Errorf("%s: the route %s refers to the Gateway %s, which the overlay does not contain", overlay, r.Name, to)
				}
			}
			for _, rule := range r.Spec.Rules {
				for _, b := range rule.BackendRefs {
					routes++
					if to := r.Namespace + " to " + string(*b.Namespace) + "/" + string(b.Name); !granted[to] {
						t.Errorf("%s: no ReferenceGrant allows %s", overlay, to)
					}
				}
			}
		}
	}
	if routes == 0 {
		t.Error("got no routes, want at least one")
	}
}

// Users wait for signin, and services of other teams for revocations.
func TestProduction_MinScale(t *testing.T) {
	for _, s := range all[serving.Service](t, "production", "Service", "serving.knative.dev") {
		want := map[bool]string{true: "1", false: "0"}[s.Name == "signin" || s.Name == "revocations"]
		if got := s.Spec.Template.Annotations["autoscaling.knative.dev/min-scale"]; got != want {
			t.Errorf("%s: got min-scale %s, want %s", s.Name, got, want)
		}
	}
}
