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

// Envoy's configuration routes each path to Kourier's internal gateway, with the host that selects
// the function. It contains no path that is not in the Ingress.
func TestKourier_RoutesPathsToFunctions(t *testing.T) {
	for _, overlay := range []string{"local", "local-tickets"} {
		t.Run(overlay, func(t *testing.T) { testKourier(t, overlay) })
	}
}

func testKourier(t *testing.T, overlay string) {
	ingress := &networking.Ingress{}
	for _, r := range built(t, overlay).Resources() {
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
				t.Errorf("got the domains %v, want localhost and localhost:*", host.GetDomains())
			}
			for _, r := range host.GetRoutes() {
				if probe := len(r.GetMatch().GetHeaders()) > 0; !probe { // Kourier uses it to check that Envoy has the whole configuration
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

// placeholder returns the Kubernetes Service that Knative creates for a cluster-local Service. It
// is an alias of the internal gateway.
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
