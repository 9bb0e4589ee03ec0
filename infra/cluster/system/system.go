//go:build linux

// Package system installs the system on a cluster that has Knative, with the unchanged
// manifests of infra/knative. It builds the functions' binaries and their images, and
// replaces the ko:// references of the manifests as ko does, without a registry. It uses
// the overlay e2e, with the embedded database, and adds the example infra/examples/tickets.
//
// The package is for infra/cluster.
package system

import (
	"context"
	"fmt"
	"net/http"
	"os"
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
	overlay    = "infra/knative/overlays/e2e"
	modulePath = "ticketing.com/auth/"
	server     = "mongodb://mongodb." + knative.Namespace + ".svc.cluster.local:27017/"
	mongodb    = server + "users"

	tickets        = "infra/examples/tickets" // a module of its own
	ticketsModule  = "ticketing.com/tickets"
	ticketsPath    = "/api/tickets"
	ticketsOverlay = tickets + "/k8s/e2e"
)

// A System is the functions with their dependencies, on a node.
type System struct {
	Node     node.Node
	Progress func(string)
}

// Install installs the system or its changes, and waits until it responds.
func (s System) Install(ctx context.Context) error {
	images, err := s.build(ctx)
	if err != nil {
		return err
	}
	s.Progress("The functions' images are imported.")
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
	manifests := ""
	for _, folder := range []string{overlay, ticketsOverlay} {
		all, err := s.Node.Kubectl(ctx, nil, "kustomize", filepath.Join(root, filepath.FromSlash(folder)))
		if err != nil {
			return err
		}
		manifests += "\n---\n" + all
	}
	if manifests, err = resolve(manifests, images); err != nil {
		return err
	}
	// a Job is immutable, and this one can run repeatedly
	if _, err := s.Node.Kubectl(ctx, nil, "--namespace", knative.Namespace, "delete", "job", "migrate", "--ignore-not-found"); err != nil {
		return err
	}
	if err := s.apply(ctx, sinkManifests(manifests)); err != nil {
		return err
	}
	if err := s.wait(ctx, "Ready", "sinkbindings.sources.knative.dev", "--all"); err != nil {
		return err
	}
	if err := s.apply(ctx, manifests); err != nil {
		return err
	}
	s.Progress("The system is applied.")
	return s.waitReady(ctx)
}

// packages returns the programs of the workspace that run in pods.
func packages() []string {
	all := []string{"infra/allinone", "infra/migrate", "infra/test/e2e/listener"}
	for _, e := range catalog.Functions() {
		all = append(all, "functions/"+e.Name+"/cmd/"+e.Name)
	}
	return all
}

// build builds the images and imports them into the node. It returns their references by
// the ko:// names of the manifests.
func (s System) build(ctx context.Context) (map[string]string, error) {
	var local []string
	for _, p := range packages() {
		local = append(local, "./"+p)
	}
	folder, err := build.Workspace(ctx, local...)
	if err != nil {
		return nil, err
	}
	database, err := devdb.Binary(ctx, s.Progress)
	if err != nil {
		return nil, err
	}
	example, err := gobuild.Module{
		Name: "tickets", Title: "the example tickets", Dir: tickets,
		Flags: []string{"-ldflags=-s -w"}, Duration: "half a minute",
	}.Build(ctx, s.Progress)
	if err != nil {
		return nil, err
	}
	programs := map[string]string{"infra/devdb": database, tickets: filepath.Join(example, "tickets")}
	for _, p := range packages() {
		programs[p] = filepath.Join(folder, filepath.Base(p))
	}
	images, references := map[string]image.Image{}, map[string]string{}
	for p, program := range programs {
		i, err := image.Image{Name: "dev.local/" + filepath.Base(p), Program: program}.Tagged()
		if err != nil {
			return nil, err
		}
		name := modulePath + p
		if p == tickets {
			name = ticketsModule
		}
		images[p], references["ko://"+name] = i, i.Ref()
	}
	return references, install.Import(ctx, s.Node, images)
}

// secrets returns the output of "go run ./infra/keys secrets", with the cluster's own
// keys. It removes the credentials from the URIs, because the embedded database has no
// users and rejects authentication.
func (s System) secrets(ctx context.Context, root string) (string, error) {
	dir := filepath.Join(s.Node.Dir, "keys")
	if _, err := keyring.Ensure(dir, time.Now().UTC()); err != nil {
		return "", err
	}
	smtp := filepath.Join(dir, "smtp.url")
	if err := os.WriteFile(smtp, []byte(mailServer), 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "run", "./infra/keys", "secrets", "-dir", dir, "-mongodb", mongodb, "-smtp", smtp)
	cmd.Dir = root
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("generate the secrets: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return regexp.MustCompile(`mongodb://[^@"]*@`).ReplaceAllString(string(out), "mongodb://") + ticketsSecret, nil
}

// mailServer is the address of the listener, which prints the mails.
const mailServer = "smtp://listener." + knative.Namespace + ".svc.cluster.local:1025?tls=none"

const ticketsSecret = `
---
apiVersion: v1
kind: Secret
metadata: {name: mongodb-tickets, namespace: ` + knative.Namespace + `}
stringData: {uri: "` + server + `tickets"}
`

var imageName = regexp.MustCompile(`ko://[\w./-]+`)

// resolve replaces the ko:// names by image references. An unknown name is an error.
func resolve(manifests string, references map[string]string) (resolved string, err error) {
	resolved = imageName.ReplaceAllStringFunc(manifests, func(found string) string {
		if references[found] == "" {
			err = fmt.Errorf("no image is built for %s", found)
		}
		return references[found]
	})
	return resolved, err
}

// sinkManifests returns the manifests of the broker and of the SinkBinding. They must be
// applied first. A function that exists before its sink gets a revision without one, and
// a revision of relay cannot start without it.
func sinkManifests(manifests string) string {
	var all []string
	for document := range strings.SplitSeq(manifests, "\n---\n") {
		if strings.Contains(document, "\nkind: Broker\n") || strings.Contains(document, "\nkind: SinkBinding\n") {
			all = append(all, document)
		}
	}
	return strings.Join(all, "\n---\n")
}

func (s System) apply(ctx context.Context, manifests string) error {
	return install.Retry(ctx, func() error {
		_, err := s.Node.Kubectl(ctx, strings.NewReader(manifests), "apply", "-f", "-")
		return err
	})
}

func (s System) wait(ctx context.Context, condition, kind, selector string) error {
	_, err := s.Node.Kubectl(ctx, nil, "--namespace", knative.Namespace, "wait", "--for=condition="+condition, "--timeout=300s", kind, selector)
	return err
}

// waitReady waits until all resources are ready and the ingress routes to the functions.
func (s System) waitReady(ctx context.Context) error {
	for _, w := range []struct{ condition, kind, message string }{
		{"Complete", "job", "The indexes exist."},
		{"Available", "deployment", "The database is ready."},
		{"Ready", "services.serving.knative.dev", "The functions are ready."},
		{"Ready", "triggers.eventing.knative.dev", ""},
		{"Ready", "pingsources.sources.knative.dev", "Events are ready."},
	} {
		selector := "--all"
		if w.kind == "deployment" { // exclude the deployments of functions that are scaled to zero
			selector = "--selector=app.kubernetes.io/name in (mongod, listener)"
		}
		if err := s.wait(ctx, w.condition, w.kind, selector); err != nil {
			return err
		}
		if w.message != "" {
			s.Progress(w.message)
		}
		if w.kind == "services.serving.knative.dev" { // while their first pods are still running
			if err := s.waitForRoutes(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// waitForRoutes waits for the ingress, because it reports that it is ready a moment too
// early.
func (s System) waitForRoutes(ctx context.Context) error {
	for _, f := range catalog.Functions() {
		for _, e := range f.Routed() {
			for _, url := range []string{install.BaseURL, install.KnativeURL} {
				if err := waitForRoute(ctx, url+e.Path); err != nil {
					return err
				}
			}
		}
	}
	if err := waitForRoute(ctx, install.BaseURL+ticketsPath); err != nil {
		return err
	}
	s.Progress("Every route reaches its function.")
	return nil
}

// waitForRoute waits until a function responds, even with 401, 404 or 405. The 404 of an ingress has no
// JSON body.
func waitForRoute(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	status := "no response"
	client := &http.Client{Timeout: 20 * time.Second}
	for ctx.Err() == nil {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		r.Host = knative.Host
		response, err := client.Do(r)
		if err == nil {
			response.Body.Close()
			switch response.StatusCode {
			case http.StatusOK, http.StatusMethodNotAllowed:
				return nil
			case http.StatusNotFound, http.StatusUnauthorized:
				if response.Header.Get("Content-Type") == "application/json" {
					return nil
				}
			}
			status = response.Status
		}
		time.Sleep(200 * time.Millisecond)
	}
	return fmt.Errorf("%s: %s", url, status)
}
