package validate

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	network "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	podsecurity "k8s.io/pod-security-admission/api"
	checks "k8s.io/pod-security-admission/policy"
	eventing "knative.dev/eventing/pkg/apis/eventing/v1"
	sources "knative.dev/eventing/pkg/apis/sources/v1"
	networking "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/apis"
	serving "knative.dev/serving/pkg/apis/serving/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	gatewaybeta "sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// overlays are the folders of ../overlays, so that a new one is checked as well.
var overlays = func() (names []string) {
	folders, err := os.ReadDir("../../knative/overlays")
	if err != nil || len(folders) == 0 {
		panic(fmt.Sprint("no overlays are found: ", err))
	}
	for _, f := range folders {
		names = append(names, f.Name())
	}
	return names
}()

// built is an overlay as kubectl would send it to the cluster.
func built(t *testing.T, overlay string) resmap.ResMap {
	t.Helper()
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "../../knative/overlays/"+overlay)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEveryManifestOfEveryOverlayWouldBeTaken(t *testing.T) {
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			for _, r := range built(t, overlay).Resources() {
				document, err := r.AsYAML()
				if err != nil {
					t.Fatal(err)
				}
				if err := check(document); err != nil {
					t.Errorf("%s: %v", r.CurId(), err)
				}
			}
		})
	}
}

// What a manifest names is in the same namespace of the same overlay. Secrets are not:
// they are made by infra/keys, and infra/knative's tests hold them to their names. Nor
// is what the ingress's own namespace has, which is the cluster's.
func TestWhatAManifestNamesIsThere(t *testing.T) {
	for _, overlay := range overlays {
		all := built(t, overlay).Resources()
		there := map[string]bool{"ConfigMap ticketing/kube-root-ca.crt": true} // Kubernetes puts it into every namespace
		for _, r := range all {
			there[r.GetKind()+" "+r.GetNamespace()+"/"+r.GetName()] = true
		}
		named := regexp.MustCompile(`(?m)(configMapRef:|configMap:|serviceAccountName:|serviceName:)\s+(?:name: )?(\S+)$`)
		kinds := map[string]string{"configMapRef:": "ConfigMap", "configMap:": "ConfigMap", "serviceAccountName:": "ServiceAccount", "serviceName:": "Service"}
		checked := 0
		for _, r := range all {
			if r.GetNamespace() == "traefik" {
				continue
			}
			for _, m := range named.FindAllStringSubmatch(r.MustYaml(), -1) {
				if checked++; !there[kinds[m[1]]+" "+r.GetNamespace()+"/"+m[2]] {
					t.Errorf("%s: %s names %s %s, which is not there", overlay, r.CurId(), m[1], m[2])
				}
			}
		}
		if checked < 4 {
			t.Errorf("%s: only %d names were found", overlay, checked)
		}
	}
}

// The checks are worth something only if they refuse.
func TestWhatAClusterWouldRefuseIsRefused(t *testing.T) {
	service := func() string {
		for _, r := range built(t, "local").Resources() {
			if r.GetKind() == "Service" && r.GetName() == "signin" {
				return r.MustYaml()
			}
		}
		t.Fatal("no signin")
		return ""
	}()
	for _, c := range []struct{ name, old, new, says string }{
		{"a member that does not exist", "containerConcurrency:", "concurrency:", "unknown field"},
		{"autoscaling beside the revision", "  labels:\n", "  annotations: {autoscaling.knative.dev/max-scale: \"3\"}\n  labels:\n", "autoscaling annotations must be put under"},
		{"a scale that is no number", `max-scale: "20"`, `max-scale: many`, "invalid value: many"},
		{"a port too many", "- containerPort: 8080", "- containerPort: 8080\n        - containerPort: 8081", "more than one container port"},
		{"a root file system that can be written to by root", "runAsNonRoot: true", "runAsNonRoot: false", "restricted"},
		{"a capability", "drop:\n            - ALL", "drop: []", "restricted"},
		{"a root file system that can be written to", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "not confined"},
		{"addresses of neighbours", "enableServiceLinks: false", "enableServiceLinks: true", "not confined"},
		{"a name that DNS does not take", "name: signin\n  namespace", "name: sign_in\n  namespace", "sign_in"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mutant := strings.Replace(service, c.old, c.new, 1)
			if mutant == service {
				t.Fatalf("there is no %q in\n%s", c.old, service)
			}
			if err := check([]byte(mutant)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// check is what the API server and its webhooks do to a document.
func check(document []byte) error {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	if err := yaml.Unmarshal(document, &head); err != nil {
		return err
	}
	if faults := validation.IsDNS1123Subdomain(head.Metadata.Name); faults != nil {
		return fmt.Errorf("%s: %v", head.Metadata.Name, faults)
	}
	object := kinds[head.APIVersion+" "+head.Kind]
	if object == nil {
		return fmt.Errorf("nothing here knows %s %s", head.APIVersion, head.Kind)
	}
	o := object()
	if err := yaml.UnmarshalStrict(document, o); err != nil {
		return err
	}
	if w, ok := o.(webhook); ok {
		ctx := apis.WithinCreate(context.Background())
		w.SetDefaults(ctx)
		if faults := w.Validate(ctx).Filter(apis.ErrorLevel); faults != nil {
			return faults
		}
	}
	return restricted(o)
}

// A webhook is what Knative's own admission calls.
type webhook interface {
	apis.Defaultable
	apis.Validatable
}

var kinds = map[string]func() any{
	"v1 Namespace":                       func() any { return &core.Namespace{} },
	"v1 ConfigMap":                       func() any { return &core.ConfigMap{} },
	"v1 Service":                         func() any { return &core.Service{} },
	"v1 ServiceAccount":                  func() any { return &core.ServiceAccount{} },
	"apps/v1 StatefulSet":                func() any { return &apps.StatefulSet{} },
	"apps/v1 Deployment":                 func() any { return &apps.Deployment{} },
	"batch/v1 Job":                       func() any { return &batch.Job{} },
	"networking.k8s.io/v1 NetworkPolicy": func() any { return &network.NetworkPolicy{} },
	"rbac.authorization.k8s.io/v1 ClusterRoleBinding":  func() any { return &rbac.ClusterRoleBinding{} },
	"policy/v1 PodDisruptionBudget":                    func() any { return &policy.PodDisruptionBudget{} },
	"serving.knative.dev/v1 Service":                   func() any { return &serving.Service{} },
	"networking.internal.knative.dev/v1alpha1 Ingress": func() any { return &networking.Ingress{} },
	"eventing.knative.dev/v1 Broker":                   func() any { return &eventing.Broker{} },
	"eventing.knative.dev/v1 Trigger":                  func() any { return &eventing.Trigger{} },
	"sources.knative.dev/v1 PingSource":                func() any { return &sources.PingSource{} },
	"sources.knative.dev/v1 SinkBinding":               func() any { return &sources.SinkBinding{} },
	"gateway.networking.k8s.io/v1 Gateway":             func() any { return &gateway.Gateway{} },
	"gateway.networking.k8s.io/v1 HTTPRoute":           func() any { return &gateway.HTTPRoute{} },
	"gateway.networking.k8s.io/v1beta1 ReferenceGrant": func() any { return &gatewaybeta.ReferenceGrant{} },
}

// restricted judges the pods that an object makes as a namespace with
// pod-security.kubernetes.io/enforce: restricted does.
func restricted(o any) error {
	var pod core.PodSpec
	var meta = &core.PodTemplateSpec{}
	switch o := o.(type) {
	case *serving.Service:
		meta.ObjectMeta, pod = o.Spec.Template.ObjectMeta, o.Spec.Template.Spec.PodSpec
	case *apps.StatefulSet:
		meta, pod = &o.Spec.Template, o.Spec.Template.Spec
	case *apps.Deployment:
		meta, pod = &o.Spec.Template, o.Spec.Template.Spec
	case *batch.Job:
		meta, pod = &o.Spec.Template, o.Spec.Template.Spec
	default:
		return nil
	}
	if err := confined(pod); err != nil {
		return err
	}
	evaluator, err := checks.NewEvaluator(checks.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	verdict := checks.AggregateCheckResults(evaluator.EvaluatePod(level, &meta.ObjectMeta, &pod))
	if !verdict.Allowed {
		return fmt.Errorf("not restricted: %s", verdict.ForbiddenDetail())
	}
	return nil
}

// confined is what "restricted" leaves open: no token, no addresses of neighbours, and
// a root file system that nobody writes to.
func confined(pod core.PodSpec) error {
	off := func(b *bool) bool { return b != nil && !*b }
	if !off(pod.AutomountServiceAccountToken) || !off(pod.EnableServiceLinks) {
		return fmt.Errorf("not confined: it has a token, or service links")
	}
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		if c.SecurityContext == nil || off(c.SecurityContext.ReadOnlyRootFilesystem) || c.SecurityContext.ReadOnlyRootFilesystem == nil {
			return fmt.Errorf("not confined: %s may write to its root", c.Name)
		}
	}
	return nil
}
