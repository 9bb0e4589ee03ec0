//go:build linux

// Package system puts the system onto a cluster that has Knative, by the manifests of
// infra/knative as they are: it builds the functions' binaries, makes images of them,
// and does for the manifests' ko:// names what ko would, without a registry. The overlay
// is e2e, in which the database is the embedded one.
//
// It is for infra/cluster.
package system

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/cluster/build"
	"ticketing.com/auth/infra/cluster/image"
	"ticketing.com/auth/infra/cluster/install"
	"ticketing.com/auth/infra/cluster/node"
	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/knative"
	"ticketing.com/auth/shared/testing/devdb"
	"ticketing.com/auth/shared/testing/gobuild"
)

const (
	overlay = "infra/knative/overlays/e2e"
	ours    = "ticketing.com/auth/"
	mongodb = "mongodb://mongodb." + knative.Namespace + ".svc.cluster.local:27017/users"
)

// A System is the functions and what they need, on a node.
type System struct {
	Node node.Node
	Say  func(string)
}

// Install installs the system, or what of it has changed, and waits until it answers.
func (s System) Install(ctx context.Context) error {
	images, err := s.build(ctx)
	if err != nil {
		return err
	}
	s.Say("The functions' images are on the node.")
	root, err := gobuild.Repository()
	if err != nil {
		return err
	}
	if _, err := s.Node.Kubectl(ctx, nil, "apply", "-f", filepath.Join(root, "infra", "knative", "base", "namespace.yaml")); err != nil {
		return err
	}
	secrets, err := s.secrets(ctx, root)
	if err != nil {
		return err
	}
	if _, err := s.Node.Kubectl(ctx, strings.NewReader(secrets), "apply", "-f", "-"); err != nil {
		return err
	}
	manifests, err := s.Node.Kubectl(ctx, nil, "kustomize", filepath.Join(root, filepath.FromSlash(overlay)))
	if err != nil {
		return err
	}
	if manifests, err = resolve(manifests, images); err != nil {
		return err
	}
	// a Job cannot be changed, and this one may be run again
	if _, err := s.Node.Kubectl(ctx, nil, "--namespace", knative.Namespace, "delete", "job", "migrate", "--ignore-not-found"); err != nil {
		return err
	}
	if err := s.apply(ctx, binding(manifests)); err != nil {
		return err
	}
	if err := s.wait(ctx, "Ready", "sinkbindings.sources.knative.dev", "--all"); err != nil {
		return err
	}
	if err := s.apply(ctx, manifests); err != nil {
		return err
	}
	s.Say("The system is applied.")
	return s.await(ctx)
}

// packages are the programs of the workspace that run in pods.
func packages() []string {
	all := []string{"infra/allinone", "infra/migrate", "infra/test/e2e/listener"}
	for _, e := range catalog.Functions() {
		all = append(all, "functions/"+e.Name+"/cmd/"+e.Name)
	}
	return all
}

// build builds the images and gives them to the node. It returns their references, by
// what the manifests call them.
func (s System) build(ctx context.Context) (map[string]string, error) {
	var local []string
	for _, p := range packages() {
		local = append(local, "./"+p)
	}
	folder, err := build.Own(ctx, local...)
	if err != nil {
		return nil, err
	}
	mongod, err := devdb.Binary(ctx, s.Say)
	if err != nil {
		return nil, err
	}
	programs := map[string]string{"infra/devdb": mongod}
	for _, p := range packages() {
		programs[p] = filepath.Join(folder, filepath.Base(p))
	}
	images, references := map[string]image.Image{}, map[string]string{}
	for p, program := range programs {
		i, err := image.Image{Name: "dev.local/" + filepath.Base(p), Program: program}.Seal()
		if err != nil {
			return nil, err
		}
		images[p], references["ko://"+ours+p] = i, i.Ref()
	}
	return references, install.Import(ctx, s.Node, images)
}

// secrets are what "go run ./infra/keys secrets" prints, with keys that are the
// cluster's own. The embedded database knows no users, and refuses those who say that
// they are one.
func (s System) secrets(ctx context.Context, root string) (string, error) {
	dir := filepath.Join(s.Node.Dir, "keys")
	if _, err := keyring.Ensure(dir, time.Now().UTC()); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "run", "./infra/keys", "secrets", "-dir", dir, "-mongodb", mongodb)
	cmd.Dir = root
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("make the secrets: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return regexp.MustCompile(`mongodb://[^@"]*@`).ReplaceAllString(string(out), "mongodb://"), nil
}

var name = regexp.MustCompile(`ko://[\w./-]+`)

// resolve puts the images in, and tolerates no name that it does not know.
func resolve(manifests string, references map[string]string) (resolved string, err error) {
	resolved = name.ReplaceAllStringFunc(manifests, func(found string) string {
		if references[found] == "" {
			err = fmt.Errorf("there is no image for %s", found)
		}
		return references[found]
	})
	return resolved, err
}

// binding are the manifests of the broker and of the SinkBinding. They come first: a
// function that is there before its sink gets a revision without one, and relay's
// cannot start.
func binding(manifests string) string {
	var all []string
	for document := range strings.SplitSeq(manifests, "\n---\n") {
		if strings.Contains(document, "\nkind: Broker\n") || strings.Contains(document, "\nkind: SinkBinding\n") {
			all = append(all, document)
		}
	}
	return strings.Join(all, "\n---\n")
}

func (s System) apply(ctx context.Context, manifests string) error {
	return install.Again(ctx, func() error {
		_, err := s.Node.Kubectl(ctx, strings.NewReader(manifests), "apply", "-f", "-")
		return err
	})
}

func (s System) wait(ctx context.Context, condition, kind, which string) error {
	_, err := s.Node.Kubectl(ctx, nil, "--namespace", knative.Namespace, "wait", "--for=condition="+condition, "--timeout=300s", kind, which)
	return err
}

// await waits until everything says that it is ready, and the ingress leads to it.
func (s System) await(ctx context.Context) error {
	for _, w := range []struct{ condition, kind, what string }{
		{"Complete", "job", "The indexes are made."},
		{"Available", "deployment", "The database is ready."},
		{"Ready", "services.serving.knative.dev", "The functions are ready."},
		{"Ready", "triggers.eventing.knative.dev", ""},
		{"Ready", "pingsources.sources.knative.dev", "Events are ready."},
	} {
		which := "--all"
		if w.kind == "deployment" { // those of sleeping functions are there too
			which = "--selector=app.kubernetes.io/name in (mongod, listener)"
		}
		if err := s.wait(ctx, w.condition, w.kind, which); err != nil {
			return err
		}
		if w.what != "" {
			s.Say(w.what)
		}
		if w.kind == "services.serving.knative.dev" { // whose first pods are awake still
			if err := s.awaitRoutes(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitRoutes waits for the ingress, which says that it is ready a moment before it is.
func (s System) awaitRoutes(ctx context.Context) error {
	for _, e := range catalog.Functions() {
		if e.Path == "" {
			continue
		}
		for _, url := range []string{install.BaseURL, install.KnativeURL} {
			if err := awaitRoute(ctx, url+e.Path); err != nil {
				return err
			}
		}
	}
	s.Say("Every route leads to its function.")
	return nil
}

// awaitRoute waits until a function answers, be it that it wants another method.
func awaitRoute(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	last := "no answer"
	client := &http.Client{Timeout: 20 * time.Second}
	for ctx.Err() == nil {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		r.Host = knative.Host
		answer, err := client.Do(r)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK || answer.StatusCode == http.StatusMethodNotAllowed {
				return nil
			}
			last = answer.Status
		}
		time.Sleep(200 * time.Millisecond)
	}
	return fmt.Errorf("%s: %s", url, last)
}
