package validate

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	serving "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/yaml"
)

// The commands for kn and the files for func must create the same Services as the manifests. The
// tests parse them as the tools do.

// deployed returns the Services of the manifests by name. omit removes the fields that a tool
// cannot set.
func deployed(t *testing.T, omit func(*serving.Service)) map[string]serving.Service {
	t.Helper()
	all := map[string]serving.Service{}
	for _, overlay := range []string{"local-eventing", "small"} {
		resources := built(t, overlay).Resources()
		var settings core.ConfigMap
		for _, r := range resources {
			if r.GetKind() == "ConfigMap" && strings.HasPrefix(r.GetName(), "ticketing-auth-") {
				if err := yaml.UnmarshalStrict([]byte(r.MustYaml()), &settings); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, r := range resources {
			if r.GetGvk().Group != "serving.knative.dev" {
				continue
			}
			var s serving.Service
			if err := yaml.UnmarshalStrict([]byte(r.MustYaml()), &s); err != nil {
				t.Fatal(err)
			}
			if s.Spec.Template.Annotations["autoscaling.knative.dev/target-burst-capacity"] != "" { // it limits client addresses
				c := &s.Spec.Template.Spec.Containers[0]
				c.Env = append(c.Env, core.EnvVar{Name: "RATE_LIMIT", Value: settings.Data["RATE_LIMIT"]})
			}
			s.Spec.Traffic = nil // both tools route to the latest revision by default
			omit(&s)
			all[s.Name] = s
		}
	}
	if folders, err := filepath.Glob("../../../functions/*/func.yaml"); err != nil || len(all) != len(folders)+1 {
		t.Fatalf("got %d services and the error %[3]v, want one for each of %[2]v and one for all routes", len(all), folders, err)
	}
	return all
}

// withoutEvents removes the setting that the component eventing adds to functions with a route.
func withoutEvents(s *serving.Service) {
	if s.Name != "relay" && s.Name != "mail" {
		c := &s.Spec.Template.Spec.Containers[0]
		c.Env = slices.DeleteFunc(c.Env, func(e core.EnvVar) bool { return e.Name == "EVENTS" })
	}
}

func TestKnCommands_AgreeWithTheManifests(t *testing.T) {
	want := deployed(t, func(s *serving.Service) {
		withoutEvents(s)
		spec := &s.Spec.Template.Spec
		spec.EnableServiceLinks, spec.AutomountServiceAccountToken = nil, nil // the service account disables the token too
		spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem = nil
		spec.Containers[0].EnvFrom = nil
		s.TypeMeta = serving.Service{}.TypeMeta
	})
	page, err := os.ReadFile("../../docs/deploy-kn.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, m := range regexp.MustCompile(`(?m)^kn service apply ((?:.*\\\n)*.*)$`).FindAllStringSubmatch(string(page), -1) {
		got := kn(t, words(m[1]))
		commands++
		if w, known := want[got.Name]; !known || !reflect.DeepEqual(sorted(w), sorted(got)) {
			g, _ := yaml.Marshal(sorted(got))
			m, _ := yaml.Marshal(sorted(w))
			t.Errorf("%s: got from kn\n%s\nwant as in the manifest\n%s", got.Name, g, m)
		}
	}
	if commands != len(want) {
		t.Errorf("got %d commands, want %d", commands, len(want))
	}
}

// words splits a command into words. It supports quotation marks only around the image.
func words(command string) []string {
	return regexp.MustCompile(`"[^"]*"|[^\s\\]+`).FindAllString(command, -1)
}

// kn returns the Service that "kn service apply" creates from its arguments (kn 1.18).
func kn(t *testing.T, args []string) serving.Service {
	t.Helper()
	var s serving.Service
	s.Name, args = args[0], args[1:]
	s.Labels = map[string]string{}
	template := &s.Spec.Template
	template.Labels, template.Annotations = map[string]string{}, map[string]string{}
	spec := &template.Spec
	spec.Containers = []core.Container{{}}
	c := &spec.Containers[0]
	for len(args) > 0 {
		flag := args[0]
		if args = args[1:]; flag == "--cluster-local" {
			s.Labels["networking.knative.dev/visibility"] = "cluster-local"
			continue
		}
		value := args[0]
		args = args[1:]
		name, of, _ := strings.Cut(value, "=")
		switch flag {
		case "--namespace":
			s.Namespace = value
		case "--image":
			c.Image = "ko://ticketing.com/auth/" + strings.TrimSuffix(strings.TrimPrefix(value, `"$(ko build ./`), `)"`)
		case "--service-account":
			spec.ServiceAccountName = value
		case "--security-context":
			if value == "strict" {
				yes, no := true, false
				c.SecurityContext = &core.SecurityContext{
					RunAsNonRoot: &yes, AllowPrivilegeEscalation: &no,
					Capabilities:   &core.Capabilities{Drop: []core.Capability{"ALL"}},
					SeccompProfile: &core.SeccompProfile{Type: core.SeccompProfileTypeRuntimeDefault},
				}
			}
		case "--label":
			s.Labels[name], template.Labels[name] = of, of
		case "--label-service":
			s.Labels[name] = of
		case "--annotation-revision":
			template.Annotations[name] = of
		case "--scale-min", "--scale-max", "--scale-metric", "--scale-target":
			key := strings.TrimPrefix(flag, "--scale-")
			if key == "min" || key == "max" {
				key += "-scale"
			}
			template.Annotations["autoscaling.knative.dev/"+key] = value
		case "--concurrency-limit":
			n := number(t, value)
			spec.ContainerConcurrency = &n
		case "--timeout":
			n := number(t, value)
			spec.TimeoutSeconds = &n
		case "--pull-policy":
			c.ImagePullPolicy = core.PullPolicy(value)
		case "--port":
			c.Ports = []core.ContainerPort{{ContainerPort: int32(number(t, value))}}
		case "--request":
			c.Resources.Requests = resources(t, value)
		case "--limit":
			c.Resources.Limits = resources(t, value)
		case "--env":
			c.Env = append(c.Env, core.EnvVar{Name: name, Value: of})
		case "--env-value-from":
			part := strings.Split(of, ":")
			c.Env = append(c.Env, secretEnv(name, part[1], part[2]))
		default:
			t.Errorf("the flag %s is unknown", flag)
		}
	}
	return s
}

func secretEnv(name, secret, key string) core.EnvVar {
	return core.EnvVar{Name: name, ValueFrom: &core.EnvVarSource{
		SecretKeyRef: &core.SecretKeySelector{LocalObjectReference: core.LocalObjectReference{Name: secret}, Key: key}}}
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func resources(t *testing.T, list string) core.ResourceList {
	t.Helper()
	all := core.ResourceList{}
	for item := range strings.SplitSeq(list, ",") {
		name, quantity, _ := strings.Cut(item, "=")
		q, err := resource.ParseQuantity(quantity)
		if err != nil {
			t.Fatal(err)
		}
		all[core.ResourceName(name)] = q
	}
	return all
}

// sorted returns a Service in a canonical form: sorted variables and normalised quantities.
func sorted(s serving.Service) serving.Service {
	env := s.Spec.Template.Spec.Containers[0].Env
	slices.SortFunc(env, func(a, b core.EnvVar) int { return strings.Compare(a.Name, b.Name) })
	for _, list := range []core.ResourceList{s.Spec.Template.Spec.Containers[0].Resources.Requests, s.Spec.Template.Spec.Containers[0].Resources.Limits} {
		for name, q := range list {
			list[name] = resource.MustParse(q.String()) // a parsed quantity also contains its original text
		}
	}
	return s
}

// A funcYAML holds the fields of func.yaml, schema 0.36.0, that this project uses. Strict parsing
// rejects all other fields.
type funcYAML struct {
	SpecVersion string `json:"specVersion"`
	Name        string `json:"name"`
	Runtime     string `json:"runtime"`
	Namespace   string `json:"namespace"`
	Created     string `json:"created"`
	Invoke      string `json:"invoke"`
	Run         struct {
		Envs []struct{ Name, Value string } `json:"envs"`
	} `json:"run"`
	Deploy struct {
		ServiceAccountName string                        `json:"serviceAccountName"`
		Labels             []struct{ Key, Value string } `json:"labels"`
		HealthEndpoints    struct {
			Liveness  string `json:"liveness"`
			Readiness string `json:"readiness"`
		} `json:"healthEndpoints"`
		Options struct {
			Scale struct {
				Min    int64   `json:"min"`
				Max    int64   `json:"max"`
				Metric string  `json:"metric"`
				Target float64 `json:"target"`
			} `json:"scale"`
			Resources struct {
				Requests struct{ CPU, Memory string } `json:"requests"`
				Limits   struct {
					CPU, Memory string
					Concurrency int64
				} `json:"limits"`
			} `json:"resources"`
		} `json:"options"`
	} `json:"deploy"`
}

func TestFuncYAML_AgreesWithTheManifests(t *testing.T) {
	files := map[string]string{"auth": "../../../func.yaml"}
	folders, err := filepath.Glob("../../../functions/*/func.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		files[filepath.Base(filepath.Dir(f))] = f
	}
	want := deployed(t, withoutEvents)
	if len(files) != len(want) {
		t.Errorf("got %d files, want %d", len(files), len(want))
	}
	commands := map[string]bool{}
	for name, file := range files {
		written, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		var f funcYAML
		if err := yaml.UnmarshalStrict(written, &f); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		s := want[name]
		update := knUpdate.FindStringSubmatch(string(written))
		if update == nil {
			t.Errorf("%s does not contain the kn command for the fields that func cannot set", file)
			continue
		}
		set := kn(t, words(update[1]))
		rest := maps.Clone(s.Spec.Template.Annotations)
		for _, option := range []string{"min-scale", "max-scale", "metric", "target"} {
			delete(rest, "autoscaling.knative.dev/"+option)
		}
		commands[update[1]] = true
		template, spec := s.Spec.Template, s.Spec.Template.Spec
		c := spec.Containers[0]
		var env []core.EnvVar
		reference := regexp.MustCompile(`^{{ secret:([^:]+):([^:]+) }}$`)
		for _, e := range f.Run.Envs {
			if m := reference.FindStringSubmatch(e.Value); m != nil {
				env = append(env, secretEnv(e.Name, m[1], m[2]))
			} else {
				env = append(env, core.EnvVar{Name: e.Name, Value: e.Value})
			}
		}
		labels := map[string]string{}
		for _, l := range f.Deploy.Labels {
			labels[l.Key] = l.Value
		}
		maps.DeleteFunc(s.Labels, func(key, _ string) bool { return key == "app.kubernetes.io/name" })
		o := f.Deploy.Options
		for field, pair := range map[string][2]any{
			"specVersion": {f.SpecVersion, "0.36.0"},
			"kn update":   {[]any{set.Name, set.Namespace, *set.Spec.Template.Spec.TimeoutSeconds, set.Spec.Template.Annotations}, []any{s.Name, s.Namespace, *spec.TimeoutSeconds, rest}},
			"name":        {f.Name, s.Name},
			"namespace":   {f.Namespace, s.Namespace},
			"account":     {f.Deploy.ServiceAccountName, spec.ServiceAccountName},
			"labels":      {labels, s.Labels},
			"env":         {sortedEnv(env), sortedEnv(c.Env)},
			"probes":      {f.Deploy.HealthEndpoints.Readiness + f.Deploy.HealthEndpoints.Liveness, "/health/readiness/health/liveness"},
			"min":         {strconv.FormatInt(o.Scale.Min, 10), template.Annotations["autoscaling.knative.dev/min-scale"]},
			"max":         {strconv.FormatInt(o.Scale.Max, 10), template.Annotations["autoscaling.knative.dev/max-scale"]},
			"metric":      {o.Scale.Metric, template.Annotations["autoscaling.knative.dev/metric"]},
			"target":      {strconv.FormatFloat(o.Scale.Target, 'f', -1, 64), template.Annotations["autoscaling.knative.dev/target"]},
			"requests":    {o.Resources.Requests.CPU + o.Resources.Requests.Memory, c.Resources.Requests.Cpu().String() + c.Resources.Requests.Memory().String()},
			"limits":      {o.Resources.Limits.CPU + o.Resources.Limits.Memory, c.Resources.Limits.Cpu().String() + c.Resources.Limits.Memory().String()},
			"concurrency": {o.Resources.Limits.Concurrency, *spec.ContainerConcurrency},
		} {
			if !reflect.DeepEqual(pair[0], pair[1]) {
				t.Errorf("%s: got %s %v, want %v as in the manifest", file, field, pair[0], pair[1])
			}
		}
	}
	page, err := os.ReadFile("../../docs/deploy-func.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := knUpdate.FindAllStringSubmatch(string(page), -1)
	for _, m := range shown {
		if !commands[m[1]] {
			t.Errorf("no func.yaml contains the command from deploy-func.md: %s", m[0])
		}
	}
	if len(shown) == 0 {
		t.Error("deploy-func.md does not contain the kn command for the fields that func cannot set")
	}
}

// knUpdate matches the kn command for the fields that func cannot set. It is in a comment of each
// func.yaml and in deploy-func.md.
var knUpdate = regexp.MustCompile(`(?m)^(?:#)?\s+kn service update (.*--timeout.*)$`)

func sortedEnv(env []core.EnvVar) []core.EnvVar {
	slices.SortFunc(env, func(a, b core.EnvVar) int { return strings.Compare(a.Name, b.Name) })
	return env
}

// A skaffoldYAML holds the fields of skaffold.yaml, schema v4beta14, that this project uses.
type skaffoldYAML struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   map[string]string `json:"metadata"`
	Build      struct {
		Artifacts []struct {
			Image   string `json:"image"`
			Context string `json:"context"`
			Docker  struct {
				Dockerfile string `json:"dockerfile"`
			} `json:"docker"`
			Ko struct {
				Main         string   `json:"main"`
				Flags        []string `json:"flags"`
				Ldflags      []string `json:"ldflags"`
				Dependencies struct {
					Paths  []string `json:"paths"`
					Ignore []string `json:"ignore"`
				} `json:"dependencies"`
			} `json:"ko"`
		} `json:"artifacts"`
		TagPolicy struct {
			InputDigest struct{} `json:"inputDigest"`
		} `json:"tagPolicy"`
		Local struct {
			Concurrency int `json:"concurrency"`
		} `json:"local"`
	} `json:"build"`
	Manifests struct {
		Kustomize struct {
			Paths []string `json:"paths"`
		} `json:"kustomize"`
	} `json:"manifests"`
	ResourceSelector struct {
		Deny []struct {
			GroupKind string   `json:"groupKind"`
			Labels    []string `json:"labels"`
		} `json:"deny"`
	} `json:"resourceSelector"`
	Deploy struct {
		StatusCheckDeadlineSeconds int `json:"statusCheckDeadlineSeconds"`
		Kubectl                    struct {
			Hooks struct{ Before, After []hook } `json:"hooks"`
		} `json:"kubectl"`
	} `json:"deploy"`
	PortForward []struct {
		ResourceType string `json:"resourceType"`
		ResourceName string `json:"resourceName"`
		Namespace    string `json:"namespace"`
		Port         int    `json:"port"`
		LocalPort    int    `json:"localPort"`
	} `json:"portForward"`
	Profiles []struct {
		Name       string `json:"name"`
		Activation []struct {
			KubeContext string `json:"kubeContext"`
		} `json:"activation"`
		Patches []struct {
			Op    string `json:"op"`
			Path  string `json:"path"`
			Value any    `json:"value"`
		} `json:"patches"`
	} `json:"profiles"`
}

type hook struct {
	Host struct {
		Command []string `json:"command"`
	} `json:"host"`
}

// Skaffold replaces image names with the images that it builds. It must build exactly the images
// in the manifests. The files that it watches must exist.
func TestSkaffold_BuildsImagesOfOverlays(t *testing.T) {
	written, err := os.ReadFile("../../../skaffold.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var s skaffoldYAML
	if err := yaml.UnmarshalStrict(written, &s); err != nil {
		t.Fatal(err)
	}
	if s.APIVersion != "skaffold/v4beta14" || s.Kind != "Config" {
		t.Errorf("got %s %s, want skaffold/v4beta14 Config", s.APIVersion, s.Kind)
	}
	var builds []string
	for _, a := range s.Build.Artifacts {
		builds = append(builds, a.Image)
		if a.Image != "ko://ticketing.com/auth/"+strings.TrimPrefix(a.Ko.Main, "./") {
			t.Errorf("the image %s is built from %s", a.Image, a.Ko.Main)
		}
		for _, p := range append(a.Ko.Dependencies.Paths, a.Ko.Main) {
			fixed, _, _ := strings.Cut(p, "*")
			if _, err := os.Stat(filepath.Join("../../..", fixed)); err != nil {
				t.Errorf("%s: %v", a.Image, err)
			}
		}
	}
	named := map[string]bool{}
	overlays := []string{"local-eventing"} // only this overlay contains relay and mail
	for _, p := range s.Manifests.Kustomize.Paths {
		overlays = append(overlays, filepath.Base(p))
	}
	for _, profile := range s.Profiles {
		for _, p := range profile.Patches {
			if to, is := p.Value.(string); is && strings.Contains(p.Path, "kustomize") {
				overlays = append(overlays, filepath.Base(to))
			}
		}
	}
	if len(overlays) != 3 {
		t.Errorf("got the overlays %v, want three", overlays)
	}
	for _, overlay := range overlays {
		for _, r := range built(t, overlay).Resources() {
			for _, m := range regexp.MustCompile(`image: (ko://\S+)`).FindAllStringSubmatch(r.MustYaml(), -1) {
				named[m[1]] = true
			}
		}
	}
	slices.Sort(builds)
	if want := slices.Sorted(maps.Keys(named)); !slices.Equal(builds, want) {
		t.Errorf("skaffold builds %v, want %v as in the manifests", builds, want)
	}
}
