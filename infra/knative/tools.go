package knative

import (
	"fmt"
	"path"
	"strings"

	"ticketing.com/auth/shared/endpoint"
)

// The files and commands for kn, func and skaffold agree with the manifests, as far as
// each tool supports their fields.

var (
	accounts = parse("accounts.yaml.tmpl")
	allinone = parse("allinone.yaml.tmpl")
	function = parse("func.yaml.tmpl")
	skaffold = parse("skaffold.yaml.tmpl")
)

// Accounts returns the manifests of the service accounts only.
func Accounts(functions []endpoint.Function) ([]byte, error) {
	return execute(accounts, allServices(functions))
}

// Small returns the manifest of the Service that serves all routes.
func Small(functions []endpoint.Function) ([]byte, error) {
	return execute(allinone, allInOne(functions))
}

// A deployment is a service with the fields of its func.yaml.
type deployment struct {
	service
	Path string // of its folder, from the root
}

// Func returns the func.yaml of a function.
func Func(f endpoint.Function) ([]byte, error) {
	return execute(function, deployment{serviceOf(f), "functions/" + f.Name})
}

// FuncAllInOne returns the func.yaml at the root.
func FuncAllInOne(functions []endpoint.Function) ([]byte, error) {
	return execute(function, deployment{allInOne(functions), "."})
}

// An artifact is an image that skaffold builds.
type artifact struct {
	Main    string
	Sources []string // patterns of its source files, in addition to the shared ones
}

// Skaffold returns skaffold.yaml. It builds and deploys the images of the overlays.
func Skaffold(functions []endpoint.Function) ([]byte, error) {
	var all []artifact
	for _, f := range functions {
		s := serviceOf(f)
		folder := path.Dir(path.Dir(s.Main))
		all = append(all, artifact{s.Main, []string{folder + "/**"}})
	}
	all = append(all, artifact{"infra/migrate", []string{"infra/migrate/**", "infra/go.mod"}})
	return execute(skaffold, all)
}

// Update returns the command that sets the fields that func cannot set.
func (s service) Update() string {
	command := fmt.Sprintf("kn service update %s --namespace %s --timeout %d %s", s.Name, Namespace, s.Timeout, retention)
	if s.ReadsClient {
		command += " " + activator
	}
	return command
}

// func has no equivalent of these flags of kn.
const (
	retention = "--annotation-revision autoscaling.knative.dev/scale-to-zero-pod-retention-period=1m"
	activator = "--annotation-revision autoscaling.knative.dev/target-burst-capacity=-1"
)

// Kn returns the commands that create each service, and the one for all routes, with kn.
func Kn(functions []endpoint.Function) ([]byte, error) {
	var out strings.Builder
	out.WriteString("```bash\n")
	for _, s := range allServices(functions) {
		fmt.Fprintf(&out, "kn service apply %s", s.Name)
		for i, flags := range s.kn() {
			if i > 0 {
				out.WriteString(" \\\n   ")
			}
			fmt.Fprintf(&out, " %s", flags)
		}
		out.WriteString("\n")
	}
	out.WriteString("```\n")
	return []byte(out.String()), nil
}

// kn returns the flags of a service, in lines. kn has no flags for the root file system and
// for service links. It cannot use the ConfigMap, because kustomize generates its name. The
// values of the ConfigMap are the defaults, except RATE_LIMIT.
func (s service) kn() []string {
	lines := []string{
		fmt.Sprintf(`--namespace %s --image "$(ko build ./%s)" --service-account %s --security-context strict`, Namespace, s.Main, s.Name),
		fmt.Sprintf("--label app.kubernetes.io/name=%s --label app.kubernetes.io/part-of=ticketing-auth", s.Name),
		fmt.Sprintf("--scale-min 0 --scale-max %d --scale-metric concurrency --scale-target %d --concurrency-limit %d --timeout %d", s.MaxScale, s.Target, s.Concurrency, s.Timeout),
		retention + " --port 8080 --pull-policy IfNotPresent",
		fmt.Sprintf("--request cpu=%s,memory=%s --limit cpu=%s,memory=%s --env GOMEMLIMIT=%s", s.CPU, s.Memory, s.CPULimit, s.Memory, s.GoMemory),
	}
	if s.ReadsClient {
		lines[3] += " " + activator
		lines[4] += " --env RATE_LIMIT=accounts"
	}
	if !s.Public {
		lines[0] += " --cluster-local"
	}
	if len(s.Publishes) > 0 {
		lines[1] += " --label-service ticketing.com/publishes-events=true"
	}
	if s.Receives {
		lines[1] += " --label-service ticketing.com/receives-events=true"
	}
	if s.Events {
		lines[4] += " --env EVENTS=on"
	}
	if refs := s.SecretRefs(); len(refs) > 0 {
		var from []string
		for _, secret := range refs {
			from = append(from, fmt.Sprintf("--env-value-from %s=secret:%s:%s", secret.Setting, secret.Name, secret.Key))
		}
		lines = append(lines, strings.Join(from, " "))
	}
	return lines
}
