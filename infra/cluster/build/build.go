// Package build builds the parts of a cluster: Kubernetes, CoreDNS, Traefik,
// kube-router's policy controller, Knative Serving and Eventing. Each part is a module
// in a folder of this package. Its go.mod lists the programs as tools. Package gobuild
// stores the programs in the user's cache folder. The builds download only Go modules.
//
// The package is for infra/cluster. It does not run the programs.
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

const kubernetesVersion = "v1.34.4" // as in kubernetes/go.mod; a test compares them

// modules returns the modules in the order in which the cluster needs them.
func modules() []gobuild.Module {
	const v = " -X k8s.io/component-base/version."
	stripped := "-ldflags=-s -w"
	return []gobuild.Module{
		{Name: "kubernetes", Title: "Kubernetes", Packages: []string{"tool"}, Duration: "about nine minutes on two cores",
			// The clients of the API server reject a kubelet of an unknown version.
			Flags: []string{stripped + v + "gitVersion=" + kubernetesVersion + v + "gitMajor=1" + v + "gitMinor=34" + v + "gitTreeState=clean"}},
		{Name: "coredns", Title: "CoreDNS", Duration: "about a minute", Flags: []string{stripped}},
		{Name: "serving", Title: "Knative Serving", Packages: []string{"tool"}, Duration: "about two minutes", Flags: []string{stripped}},
		{Name: "traefik", Title: "Traefik", Packages: []string{"tool"}, Duration: "about four minutes", Flags: []string{stripped}},
		{Name: "netpol", Title: "kube-router's policy controller", Duration: "about a minute", Flags: []string{stripped}},
		{Name: "eventing", Title: "Knative Eventing", Packages: []string{"tool"}, Duration: "about two minutes", Flags: []string{stripped}},
	}
}

// Programs maps part and name, such as "kubernetes/kubelet", to the path of a built
// program.
type Programs map[string]string

// All builds every part that is not in the cache.
func All(ctx context.Context, progress func(string)) (Programs, error) {
	programs := Programs{}
	all := modules()
	for i, m := range all {
		m.Dir = "infra/cluster/build/" + m.Name
		if m.Name == "traefik" {
			var err error
			if m.Dir, err = trimTraefik(ctx, m.Dir); err != nil {
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

// Workspace builds programs of the workspace as static binaries and returns their
// folder. The folder is in the cache, so a command that is killed leaves no other files.
// The go command rebuilds only outdated programs.
func Workspace(ctx context.Context, packages ...string) (folder string, err error) {
	root, err := gobuild.Repository()
	if err != nil {
		return "", err
	}
	folder, err = gobuild.CacheDir("own")
	if err != nil {
		return "", err
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", folder + string(filepath.Separator)}
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build programs of the workspace: %w\n%s", err, bytes.TrimSpace(out))
	}
	return folder, nil
}

// Source returns the source folder of a module that a part uses. Knative's manifests are
// stored beside its code.
func Source(ctx context.Context, part, module string) (string, error) {
	root, err := gobuild.Repository()
	if err != nil {
		return "", err
	}
	return download(ctx, filepath.Join(root, "infra", "cluster", "build", part), module)
}

// download downloads a module if it is not in the module cache, and returns its folder.
// The version is that in the go.mod of folder.
func download(ctx context.Context, folder, module string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var result struct{ Dir, Error string }
	if decoding := json.Unmarshal(out, &result); decoding == nil && result.Error != "" {
		return "", fmt.Errorf("download %s: %s", module, result.Error)
	}
	if err != nil {
		return "", fmt.Errorf("download %s: %w: %s", module, err, strings.TrimSpace(stderr.String()))
	}
	return result.Dir, nil
}

// lego is the ACME client that Traefik includes.
const lego = "github.com/go-acme/lego/v4"

// trimTraefik returns a copy of Traefik's module that contains lego, at the path that
// go.mod names. Package dns of this project replaces lego's table of all DNS providers.
// The copy is at a fixed path because the go command's cache depends on it.
func trimTraefik(ctx context.Context, dir string) (string, error) {
	root, err := gobuild.Repository()
	if err != nil {
		return "", err
	}
	folder, err := gobuild.CacheDir("traefik-source")
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

// legoSource downloads the required version of lego. The go.mod in folder replaces lego
// by a path that does not exist yet, so legoSource requests the version explicitly.
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
	return "", fmt.Errorf("the go.mod of %s does not require %s", folder, lego)
}
