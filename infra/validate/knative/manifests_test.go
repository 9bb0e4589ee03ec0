package validate

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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

// overlays holds the names of all folders in infra/knative/overlays, so that the tests include
// a new one. A folder of the same name in infra/examples/*/k8s extends the overlay with an
// example. The name "e2e+tickets" stands for both.
var overlays = func() (names []string) {
	folders, err := os.ReadDir("../../knative/overlays")
	if err != nil || len(folders) == 0 {
		panic(fmt.Sprint("infra/knative/overlays has no folders: ", err))
	}
	for _, f := range folders {
		names = append(names, f.Name())
		examples, err := filepath.Glob("../../examples/*/k8s/" + f.Name())
		if err != nil {
			panic(err)
		}
		for _, e := range examples {
			names = append(names, f.Name()+"+"+filepath.Base(filepath.Dir(filepath.Dir(e))))
		}
	}
	return names
}()

// built returns the resources of an overlay. kubectl sends the same resources to a cluster. An
// example must not contain a resource of the overlay that it extends.
func built(t *testing.T, overlay string) resmap.ResMap {
	t.Helper()
	name, example, extended := strings.Cut(overlay, "+")
	all := kustomize(t, "../../knative/overlays/"+name)
	if extended {
		if err := all.AppendAll(kustomize(t, "../../examples/"+example+"/k8s/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func kustomize(t *testing.T, folder string) resmap.ResMap {
	t.Helper()
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestOverlays_PassAdmission(t *testing.T) {
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

// Every resource that a manifest refers to is in the same namespace of the same overlay. Secrets
// are exceptions: infra/keys creates them, and the tests of infra/knative check their names.
// Resources in the namespace of the ingress are exceptions too: they belong to the cluster.
func TestOverlays_ReferencesExist(t *testing.T) {
	for _, overlay := range overlays {
		if overlay == "local-tickets" { // complete only with an example
			continue
		}
		all := built(t, overlay).Resources()
		exists := map[string]bool{"ConfigMap ticketing/kube-root-ca.crt": true} // Kubernetes creates it in every namespace
		for _, r := range all {
			exists[r.GetKind()+" "+r.GetNamespace()+"/"+r.GetName()] = true
		}
		named := regexp.MustCompile(`(?m)(configMapRef:|configMap:|serviceAccountName:|serviceName:)\s+(?:name: )?(\S+)$`)
		kinds := map[string]string{"configMapRef:": "ConfigMap", "configMap:": "ConfigMap", "serviceAccountName:": "ServiceAccount", "serviceName:": "Service"}
		checked := 0
		for _, r := range all {
			if r.GetNamespace() == "traefik" {
				continue
			}
			for _, m := range named.FindAllStringSubmatch(r.MustYaml(), -1) {
				if checked++; !exists[kinds[m[1]]+" "+r.GetNamespace()+"/"+m[2]] {
					t.Errorf("%s: %s refers to %s %s, which the overlay does not contain", overlay, r.CurId(), m[1], m[2])
				}
			}
		}
		if checked < 4 {
			t.Errorf("%s: got %d references, want at least 4", overlay, checked)
		}
	}
}

// Each case breaks one manifest. The check must return an error.
func TestCheck_InvalidManifests(t *testing.T) {
	service := func() string {
		for _, r := range built(t, "local").Resources() {
			if r.GetKind() == "Service" && r.GetName() == "signin" {
				return r.MustYaml()
			}
		}
		t.Fatal("the overlay local has no Service signin")
		return ""
	}()
	for _, c := range []struct{ name, old, new, want string }{
		{"an unknown member", "containerConcurrency:", "concurrency:", "unknown field"},
		{"an autoscaling annotation outside the template", "  labels:\n", "  annotations: {autoscaling.knative.dev/max-scale: \"3\"}\n  labels:\n", "autoscaling annotations must be put under"},
		{"a scale that is not a number", `max-scale: "20"`, `max-scale: many`, "invalid value: many"},
		{"two ports", "- containerPort: 8080", "- containerPort: 8080\n        - containerPort: 8081", "more than one container port"},
		{"a container that runs as root", "runAsNonRoot: true", "runAsNonRoot: false", "restricted"},
		{"a capability", "drop:\n            - ALL", "drop: []", "restricted"},
		{"a writable root file system", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "not confined"},
		{"service links", "enableServiceLinks: false", "enableServiceLinks: true", "not confined"},
		{"an invalid DNS name", "name: signin\n  namespace", "name: sign_in\n  namespace", "sign_in"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mutant := strings.Replace(service, c.old, c.new, 1)
			if mutant == service {
				t.Fatalf("there is no %q in\n%s", c.old, service)
			}
			if err := check([]byte(mutant)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got the error %v, want one with %q", err, c.want)
			}
		})
	}
}

// check applies the checks of the API server and of its webhooks to a document.
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
	if problems := validation.IsDNS1123Subdomain(head.Metadata.Name); problems != nil {
		return fmt.Errorf("%s: %v", head.Metadata.Name, problems)
	}
	object := kinds[head.APIVersion+" "+head.Kind]
	if object == nil {
		return fmt.Errorf("the kind %s %s is unknown: add it to kinds", head.APIVersion, head.Kind)
	}
	o := object()
	if err := yaml.UnmarshalStrict(document, o); err != nil {
		return err
	}
	if w, ok := o.(webhook); ok {
		ctx := apis.WithinCreate(context.Background())
		w.SetDefaults(ctx)
		if problems := w.Validate(ctx).Filter(apis.ErrorLevel); problems != nil {
			return problems
		}
	}
	return restricted(o)
}

// A webhook is a type with the methods that Knative's admission webhooks call.
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
	"rbac.authorization.k8s.io/v1 ClusterRoleBinding":    func() any { return &rbac.ClusterRoleBinding{} },
	"policy/v1 PodDisruptionBudget":                      func() any { return &policy.PodDisruptionBudget{} },
	"serving.knative.dev/v1 Service":                     func() any { return &serving.Service{} },
	"networking.internal.knative.dev/v1alpha1 Ingress":   func() any { return &networking.Ingress{} },
	"eventing.knative.dev/v1 Broker":                     func() any { return &eventing.Broker{} },
	"eventing.knative.dev/v1alpha1 RabbitmqBrokerConfig": func() any { return &rabbitmqBrokerConfig{} },
	"eventing.knative.dev/v1 Trigger":                    func() any { return &eventing.Trigger{} },
	"sources.knative.dev/v1 PingSource":                  func() any { return &sources.PingSource{} },
	"sources.knative.dev/v1 SinkBinding":                 func() any { return &sources.SinkBinding{} },
	"gateway.networking.k8s.io/v1 Gateway":               func() any { return &gateway.Gateway{} },
	"gateway.networking.k8s.io/v1 HTTPRoute":             func() any { return &gateway.HTTPRoute{} },
	"gateway.networking.k8s.io/v1beta1 ReferenceGrant":   func() any { return &gatewaybeta.ReferenceGrant{} },
}

// restricted checks the pods of an object against the pod security level that the label
// pod-security.kubernetes.io/enforce: restricted enforces.
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
		return fmt.Errorf("violates the level restricted: %s", verdict.ForbiddenDetail())
	}
	return nil
}

// confined checks rules beyond the level restricted: no service account token, no service links
// and a read-only root file system.
func confined(pod core.PodSpec) error {
	off := func(b *bool) bool { return b != nil && !*b }
	if !off(pod.AutomountServiceAccountToken) || !off(pod.EnableServiceLinks) {
		return fmt.Errorf("not confined: the pod has a token or service links")
	}
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		if c.SecurityContext == nil || off(c.SecurityContext.ReadOnlyRootFilesystem) || c.SecurityContext.ReadOnlyRootFilesystem == nil {
			return fmt.Errorf("not confined: the root file system of %s is writable", c.Name)
		}
	}
	return nil
}
