package validate

import (
	"context"
	"slices"
	"testing"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"knative.dev/net-kourier/pkg/generator"
	"knative.dev/net-kourier/pkg/reconciler/ingress/config"
	networking "knative.dev/networking/pkg/apis/networking/v1alpha1"
	netconfig "knative.dev/networking/pkg/config"
	"knative.dev/pkg/tracker"
	"sigs.k8s.io/yaml"
)

// What Envoy is told: each path to Kourier's internal side, with the host by which
// Knative finds the function, and nothing that is not in the Ingress.
func TestKourierLeadsEachPathToItsFunction(t *testing.T) {
	ingress := &networking.Ingress{}
	for _, r := range built(t, "local").Resources() {
		if r.GetKind() == "Ingress" {
			if err := yaml.UnmarshalStrict([]byte(r.MustYaml()), ingress); err != nil {
				t.Fatal(err)
			}
		}
	}
	var want []string
	for _, p := range ingress.Spec.Rules[0].HTTP.Paths {
		want = append(want, p.Path+" "+p.RewriteHost)
	}
	ctx := config.ToContext(context.Background(), &config.Config{Kourier: &config.Kourier{ListenIPAddresses: []string{"0.0.0.0"}}, Network: &netconfig.Config{}})
	ingress.SetDefaults(ctx)
	kube := fake.NewClientset()
	translator := generator.NewIngressTranslator(
		func(ns, name string) (*core.Secret, error) {
			return kube.CoreV1().Secrets(ns).Get(ctx, name, meta.GetOptions{})
		},
		func(string) ([]*core.ConfigMap, error) { return nil, nil },
		func(string, string) ([]*discovery.EndpointSlice, error) { return nil, nil },
		placeholder,
		untracked{},
	)
	caches, err := generator.NewCaches(ctx, kube)
	if err != nil {
		t.Fatal(err)
	}
	if err := generator.UpdateInfoForIngress(ctx, caches, ingress, &translator); err != nil {
		t.Fatal(err)
	}
	snapshot, err := caches.ToEnvoySnapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}

	var got []string
	for _, r := range snapshot.GetResources(resource.RouteType) {
		routes := r.(*route.RouteConfiguration)
		if routes.GetName() != "external_services" {
			continue
		}
		for _, host := range routes.GetVirtualHosts() {
			if !slices.Contains(host.GetDomains(), "localhost") || !slices.Contains(host.GetDomains(), "localhost:*") {
				t.Errorf("domains %v", host.GetDomains())
			}
			for _, r := range host.GetRoutes() {
				if probe := len(r.GetMatch().GetHeaders()) > 0; !probe { // Kourier's own, which asks whether Envoy has it all
					got = append(got, r.GetMatch().GetPrefix()+" "+r.GetRoute().GetHostRewriteLiteral())
				}
			}
		}
	}
	slices.Sort(want)
	if slices.Sort(got); len(got) == 0 || !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// placeholder is what Knative makes of a cluster-local Service: a name of the
// ingress's internal side.
func placeholder(ns, name string) (*core.Service, error) {
	return &core.Service{
		ObjectMeta: meta.ObjectMeta{Namespace: ns, Name: name},
		Spec: core.ServiceSpec{
			Type:         core.ServiceTypeExternalName,
			ExternalName: "kourier-internal.kourier-system.svc.cluster.local",
			Ports:        []core.ServicePort{{Name: "http2", Port: 80}},
		},
	}, nil
}

type untracked struct{ tracker.Interface }

func (untracked) TrackReference(tracker.Reference, any) error { return nil }
