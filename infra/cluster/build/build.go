// Package build builds the parts of a cluster: Kubernetes, CoreDNS, Traefik, kube-router's
// policy controller, Knative Serving and Eventing. Each is a module in a folder of this
// package; its go.mod lists the programs as tools. Package gobuild stores the programs in
// the user's cache folder. The builds download Go modules and nothing else.
//
// It is for infra/cluster. It runs nothing that it builds.
package build

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"ticketing.com/auth/shared/testing/gobuild"
)

const kubernetesVersion = "v1.34.4" // as in kubernetes/go.mod; a test holds that

// modules are in the order in which they are needed.
func modules() []gobuild.Module {
	const v = " -X k8s.io/component-base/version."
	stripped := "-ldflags=-s -w"
	return []gobuild.Module{
		{Name: "kubernetes", Title: "Kubernetes", Packages: []string{"tool"}, Duration: "about nine minutes on two cores",
			// a kubelet of unknown version is refused by the API server's clients
			Flags: []string{stripped + v + "gitVersion=" + kubernetesVersion + v + "gitMajor=1" + v + "gitMinor=34" + v + "gitTreeState=clean"}},
		{Name: "coredns", Title: "CoreDNS", Duration: "about a minute", Flags: []string{stripped}},
		{Name: "serving", Title: "Knative Serving", Packages: []string{"tool"}, Duration: "about two minutes", Flags: []string{stripped}},
		{Name: "traefik", Title: "Traefik", Packages: []string{"tool"}, Duration: "about four minutes", Flags: []string{stripped}},
		{Name: "netpol", Title: "kube-router's policy controller", Duration: "about a minute", Flags: []string{stripped}},
		{Name: "eventing", Title: "Knative Eventing", Packages: []string{"tool"}, Duration: "about two minutes", Flags: []string{stripped}},
	}
}

// Programs are the paths of what was built, by part and name, such as
// "kubernetes/kubelet".
type Programs map[string]string

// All builds every part that is not built yet.
func All(ctx context.Context, progress func(string)) (Programs, error) {
	programs := Programs{}
	all := modules()
	for i, m := range all {
		m.Dir = "infra/cluster/build/" + m.Name
		if m.Name == "traefik" {
			var err error
			if m.Dir, err = trimmed(ctx, m.Dir); err != nil {
				return nil, err
			}
		}
		folder, err := m.Build(ctx, func(message string) {
			progress(fmt.Sprintf("[%d of %d] %s", i+1, len(all), message))
		})
		if err != nil {
			return nil, err
		}
		entries, err := os.ReadDir(folder)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			programs[m.Name+"/"+entry.Name()] = filepath.Join(folder, entry.Name())
		}
	}
	return programs, nil
}

// Own builds programs of the workspace, as static binaries, and answers the folder that
// they are in. It is in the cache as well, where a command that is killed leaves nothing
// new; the go command knows which are up to date.
func Own(ctx context.Context, packages ...string) (folder string, err error) {
	root, err := gobuild.Repository()
	if err != nil {
		return "", err
	}
	folder, err = gobuild.CacheDir(root, "own")
	if err != nil {
		return "", err
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", folder + string(filepath.Separator)}
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the system: %w\n%s", err, bytes.TrimSpace(out))
	}
	return folder, nil
}

// Source answers the folder of the source of a module that a part is made of: Knative's
// manifests are kept beside its code.
func Source(ctx context.Context, part, module string) (string, error) {
	root, err := gobuild.Repository()
	if err != nil {
		return "", err
	}
	return download(ctx, filepath.Join(root, "infra", "cluster", "build", part), module)
}

// download answers the folder of a module, of the version that the go.mod of a folder
// names, and has it downloaded if need be.
func download(ctx context.Context, folder, module string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var answer struct{ Dir, Error string }
	if decoding := json.Unmarshal(out, &answer); decoding == nil && answer.Error != "" {
		return "", fmt.Errorf("download %s: %s", module, answer.Error)
	}
	if err != nil {
		return "", fmt.Errorf("download %s: %w: %s", module, err, strings.TrimSpace(stderr.String()))
	}
	return answer.Dir, nil
}

// lego is the ACME client that Traefik has in it.
const lego = "github.com/go-acme/lego/v4"

// trimmed returns a copy of Traefik's module with lego in it, where its go.mod expects it.
// Package dns of this project replaces lego's table of all DNS providers. The copy has a
// fixed place, which the go command's cache needs.
func trimmed(ctx context.Context, dir string) (string, error) {
	root, err := gobuild.Repository()
	if err != nil {
		return "", err
	}
	folder, err := gobuild.CacheDir(root, "traefik-source")
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(folder); err != nil {
		return "", err
	}
	if err := os.CopyFS(folder, os.DirFS(filepath.Join(root, filepath.FromSlash(dir)))); err != nil {
		return "", err
	}
	return folder, addLego(ctx, folder)
}

func addLego(ctx context.Context, folder string) error {
	original, err := legoSource(ctx, folder)
	if err != nil {
		return err
	}
	copied := filepath.Join(folder, "lego")
	if err := os.CopyFS(copied, os.DirFS(original)); err != nil {
		return err
	}
	providers := filepath.Join(copied, "providers", "dns")
	if err := os.RemoveAll(providers); err != nil {
		return err
	}
	return os.CopyFS(providers, os.DirFS(filepath.Join(folder, "dns")))
}

// legoSource downloads lego of the version that is required. It is replaced in that
// go.mod, by what is not there yet, so it is asked for by version.
func legoSource(ctx context.Context, folder string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "edit", "-json")
	cmd.Dir = folder
	out, err := cmd.Output()
	if err != nil {
		return "", err
	}
	var mod struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		return "", err
	}
	for _, m := range mod.Require {
		if m.Path == lego {
			return download(ctx, os.TempDir(), lego+"@"+m.Version)
		}
	}
	return "", fmt.Errorf("%s requires no %s", folder, lego)
}
