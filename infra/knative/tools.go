package knative

import (
	"fmt"
	"path"
	"strings"

	"ticketing.com/auth/shared/endpoint"
)

// What the tools that deploy are told: the same as the manifests say, as far as
// each has words for it.

var (
	accounts = page("accounts.yaml.tmpl")
	allinone = page("allinone.yaml.tmpl")
	function = page("func.yaml.tmpl")
	skaffold = page("skaffold.yaml.tmpl")
)

// Accounts renders the service accounts alone.
func Accounts(functions []endpoint.Endpoint) ([]byte, error) {
	all, err := everyService(functions)
	if err != nil {
		return nil, err
	}
	return fill(accounts, all)
}

// Small renders the Service that serves every route.
func Small(functions []endpoint.Endpoint) ([]byte, error) {
	s, err := allInOne(functions)
	if err != nil {
		return nil, err
	}
	return fill(allinone, s)
}

// A deployment is a service as func is told of it.
type deployment struct {
	service
	Path   string // of its folder, from the root
	Events bool   // it has no other use
}

// Func renders the func.yaml of a function.
func Func(e endpoint.Endpoint) ([]byte, error) {
	s, err := serviceOf(e)
	if err != nil {
		return nil, err
	}
	return fill(function, deployment{s, "functions/" + e.Name, e.Path == ""})
}

// FuncAllInOne renders the func.yaml at the root.
func FuncAllInOne(functions []endpoint.Endpoint) ([]byte, error) {
	s, err := allInOne(functions)
	if err != nil {
		return nil, err
	}
	return fill(function, deployment{s, ".", false})
}

// An artifact is an image that skaffold builds.
type artifact struct {
	Main    string
	Sources []string // patterns of what it is made of, beside what all share
}

// Skaffold renders skaffold.yaml: the images of the overlays, and how they get there.
func Skaffold(functions []endpoint.Endpoint) ([]byte, error) {
	var all []artifact
	for _, e := range functions {
		s, err := serviceOf(e)
		if err != nil {
			return nil, err
		}
		folder := path.Dir(path.Dir(s.Main))
		all = append(all, artifact{s.Main, []string{folder + "/**"}})
	}
	all = append(all, artifact{"infra/migrate", []string{"infra/migrate/**", "infra/go.mod"}})
	return fill(skaffold, all)
}

// Update is the command that sets what func cannot set.
func (s service) Update() string {
	command := fmt.Sprintf("kn service update %s --namespace %s --timeout %d %s", s.Name, Namespace, s.Timeout, retention)
	if s.Counts {
		command += " " + activator
	}
	return command
}

// Flags of kn that func has no words for.
const (
	retention = "--annotation-revision autoscaling.knative.dev/scale-to-zero-pod-retention-period=1m"
	activator = "--annotation-revision autoscaling.knative.dev/target-burst-capacity=-1"
)

// Kn renders the commands that make each service with kn, and the one of them all.
func Kn(functions []endpoint.Endpoint) ([]byte, error) {
	all, err := everyService(functions)
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	out.WriteString("```bash\n")
	for _, s := range all {
		fmt.Fprintf(&out, "kn service apply %s", s.Name)
		for i, words := range s.kn() {
			if i > 0 {
				out.WriteString(" \\\n   ")
			}
			fmt.Fprintf(&out, " %s", words)
		}
		out.WriteString("\n")
	}
	out.WriteString("```\n")
	return []byte(out.String()), nil
}

// kn are the flags of a service, a line each. kn has none for the root file system and
// service links, and the ConfigMap's name is kustomize's; its values are the defaults
// but for RATE_LIMIT.
func (s service) kn() []string {
	lines := []string{
		fmt.Sprintf(`--namespace %s --image "$(ko build ./%s)" --service-account %s --security-context strict`, Namespace, s.Main, s.Name),
		fmt.Sprintf("--label app.kubernetes.io/name=%s --label app.kubernetes.io/part-of=ticketing-auth", s.Name),
		fmt.Sprintf("--scale-min 0 --scale-max %d --scale-metric concurrency --scale-target %d --concurrency-limit %d --timeout %d", s.MaxScale, s.Target, s.Concurrency, s.Timeout),
		retention + " --port 8080 --pull-policy IfNotPresent",
		fmt.Sprintf("--request cpu=%s,memory=%s --limit cpu=%s,memory=%s --env GOMEMLIMIT=%s", s.CPU, s.Memory, s.CPULimit, s.Memory, s.GoMemory),
	}
	if s.Counts {
		lines[3] += " " + activator
		lines[4] += " --env RATE_LIMIT=accounts"
	}
	if !s.Public {
		lines[0] += " --cluster-local"
	}
	if s.Tells {
		lines[1] += " --label-service ticketing.com/tells-events=true"
	}
	if s.Takes {
		lines[1] += " --label-service ticketing.com/takes-events=true"
	}
	if s.Path == "" && !s.Public {
		lines[4] += " --env EVENTS=on"
	}
	if len(s.Secrets) > 0 {
		var from []string
		for _, secret := range s.Secrets {
			from = append(from, fmt.Sprintf("--env-value-from %s=secret:%s:%s", secret.Setting, secret.Name, secret.Key))
		}
		lines = append(lines, strings.Join(from, " "))
	}
	return lines
}
