//go:build linux

// Package install installs on a bare node the components that the system needs: the
// cluster's DNS, an ingress, Knative Serving and Eventing. It uses the manifests in
// Knative's own modules, with the images of package build.
//
// The package is for infra/cluster. Package system installs the system itself.
package install

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"

	"ticketing.com/auth/infra/cluster/build"
	"ticketing.com/auth/infra/cluster/image"
	"ticketing.com/auth/infra/cluster/node"
)

const nodePort, knativePort = "30080", "30081"

const (
	// BaseURL is the URL of the ingress from the host, through its Gateway.
	BaseURL = "http://" + node.Address + ":" + nodePort
	// KnativeURL is its URL from the host, through its Knative Ingresses.
	KnativeURL = "http://" + node.Address + ":" + knativePort
	// InsideURL is its URL from a pod, through its Gateway.
	InsideURL = "http://traefik.traefik.svc.cluster.local"
)

//go:embed files
var files embed.FS

// Images returns the images of the programs that run in pods. The keys are part and
// name, such as "serving/queue", or only the name if the part has one program.
func Images(programs build.Programs) (map[string]image.Image, error) {
	images := map[string]image.Image{}
	for key, program := range programs {
		part, name, _ := strings.Cut(key, "/")
		if part == "kubernetes" || part == "netpol" {
			continue // they run on the node itself
		}
		if part != name {
			name = part + "/" + name
		}
		tagged, err := image.Image{Name: "dev.local/" + strings.ReplaceAll(name, "/", "-"), Program: program}.Tagged()
		if err != nil {
			return nil, err
		}
		images[name] = tagged
	}
	return images, nil
}

// A Platform is the components and the node to install them on.
type Platform struct {
	Node     node.Node
	Images   map[string]image.Image
	Progress func(string)
}

// Image returns the reference of an image, for manifests.
func (p Platform) Image(name string) (string, error) {
	i, ok := p.Images[name]
	if !ok {
		return "", fmt.Errorf("no image %s is built", name)
	}
	return i.Ref(), nil
}

func (Platform) DNS() string         { return node.DNS }
func (Platform) NodePort() string    { return nodePort }
func (Platform) KnativePort() string { return knativePort }

// namespaces are those of the components. Install does not wait for other namespaces:
// they may have broken deployments that this very command is to fix.
var namespaces = []string{"kube-system", "knative-serving", "knative-eventing", "traefik"}

// Install installs everything and waits until it is ready. If it is installed already,
// Install applies the changes.
func (p Platform) Install(ctx context.Context) error {
	if err := Import(ctx, p.Node, p.Images); err != nil {
		return err
	}
	p.Progress("The images are imported.")
	serving, err := serving(ctx)
	if err != nil {
		return err
	}
	eventing, err := eventing(ctx)
	if err != nil {
		return err
	}
	definitions := append(serving.definitions, eventing.definitions...)
	if err := p.apply(ctx, definitions); err != nil {
		return err
	}
	if _, err := p.Node.Kubectl(ctx, nil, "wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"); err != nil {
		return err
	}
	if err := p.waitForServiceAccount(ctx); err != nil {
		return err
	}
	if err := p.apply(ctx, append(serving.objects, eventing.objects...)); err != nil {
		return err
	}
	for _, name := range []string{"coredns.yaml", "traefik.yaml"} {
		if err := p.applyOwn(ctx, name); err != nil {
			return err
		}
	}
	p.Progress("Knative, DNS and the ingress are applied.")
	for _, namespace := range namespaces {
		if _, err := p.Node.Kubectl(ctx, nil, "--namespace", namespace, "wait", "--for=condition=Available", "--timeout=300s", "deployment", "--all"); err != nil {
			return err
		}
	}
	p.Progress("Knative, DNS and the ingress are ready.")
	return Retry(ctx, func() error { return p.applyOwn(ctx, "settings.yaml") }) // Knative's webhook validates them
}

// Retry calls try until it succeeds, for at most a minute. A webhook that has just
// become ready may still reject connections.
func Retry(ctx context.Context, try func() error) error {
	for end := time.Now().Add(time.Minute); ; {
		err := try()
		if err == nil || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}

// Import imports the images that the node does not have.
func Import(ctx context.Context, n node.Node, images map[string]image.Image) error {
	present, err := n.Images(ctx)
	if err != nil {
		return err
	}
	var missing []image.Image
	for _, i := range images {
		if !present[i.Ref()] {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	archive, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer archive.Close()
	written := make(chan error, 1)
	go func() {
		err := image.Write(w, missing)
		w.Close()
		written <- err
	}()
	err = n.Import(ctx, archive)
	archive.Close() // otherwise the writer could wait forever
	return errors.Join(<-written, err)
}

// A bundle is the manifests of a part. The definitions of the kinds must be applied
// before the objects.
type bundle struct{ definitions, objects [][]byte }

func serving(ctx context.Context) (bundle, error) {
	core, err := build.Source(ctx, "serving", "knative.dev/serving")
	if err != nil {
		return bundle{}, err
	}
	networking, err := build.Source(ctx, "serving", "knative.dev/networking")
	if err != nil {
		return bundle{}, err
	}
	caching, err := build.Source(ctx, "serving", "knative.dev/caching")
	if err != nil {
		return bundle{}, err
	}
	gateway, err := build.Source(ctx, "traefik", "sigs.k8s.io/gateway-api")
	if err != nil {
		return bundle{}, err
	}
	var b bundle
	if b.definitions, err = read(
		core+"/config/core/300-resources/*.yaml", caching+"/config/image.yaml", gateway+"/config/crd/standard/*.yaml",
		networking+"/config/certificate.yaml", networking+"/config/domain-claim.yaml", networking+"/config/ingress.yaml", networking+"/config/serverlessservice.yaml",
	); err != nil {
		return b, err
	}
	core += "/config/core"
	b.objects, err = read(
		core+"/100-namespace.yaml", core+"/200-serviceaccount.yaml", core+"/200-roles/*.yaml",
		core+"/configmaps/*.yaml", networking+"/config/config-network.yaml",
		core+"/deployments/*.yaml",
		core+"/300-knativecertificate.yaml", core+"/999-cache.yaml", // before the webhooks that would validate them
		core+"/webhooks/*.yaml",
	)
	return b, err
}

func eventing(ctx context.Context) (bundle, error) {
	root, err := build.Source(ctx, "eventing", "knative.dev/eventing")
	if err != nil {
		return bundle{}, err
	}
	core, broker, channel := root+"/config/core", root+"/config/brokers/mt-channel-broker", root+"/config/channels/in-memory-channel"
	var b bundle
	if b.definitions, err = read(core+"/resources/*.yaml", channel+"/resources/*.yaml"); err != nil {
		return b, err
	}
	b.objects, err = read(
		core+"/100-namespace.yaml", core+"/200-*.yaml", core+"/roles/*.yaml", core+"/configmaps/*.yaml", root+"/third_party/eventing-integrations-latest/*.yaml", core+"/deployments/*.yaml",
		broker+"/roles/*.yaml", broker+"/deployments/*.yaml",
		channel+"/200-*.yaml", channel+"/roles/*.yaml", channel+"/configmaps/*.yaml", channel+"/deployments/*.yaml",
		core+"/webhooks/*.yaml", channel+"/webhooks/*.yaml",
	)
	return b, err
}

// skippedFiles are unused manifests: the autoscaling of Knative's own pods, and sinks
// without a sender.
var skippedFiles = regexp.MustCompile(`(hpa|job-sink|request-reply)\.yaml$`)

// read reads the manifests that match the patterns. Each pattern must match a file.
func read(patterns ...string) (all [][]byte, err error) {
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err == nil && len(paths) == 0 {
			err = fs.ErrNotExist
		}
		if err != nil {
			return nil, fmt.Errorf("manifests %s: %w", pattern, err)
		}
		for _, path := range paths {
			if skippedFiles.MatchString(path) && strings.Contains(path, "/deployments/") {
				continue
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			all = append(all, content)
		}
	}
	return all, nil
}

var (
	reference = regexp.MustCompile(`ko://knative\.dev/(\w+)/cmd/(?:\w+/)?(\w+)`)
	requests  = regexp.MustCompile(`(requests:\s+(?:#.*\s+)*cpu: )\d+m`)
)

// rewrite inserts the images of package build and reduces CPU requests. Knative's own
// pods request 1.2 CPUs in total, for machines with many CPUs. On this machine that
// would leave too little for the functions. The tests cover the requests of the
// functions.
func (p Platform) rewrite(manifest []byte) []byte {
	manifest = reference.ReplaceAllFunc(manifest, func(found []byte) []byte {
		m := reference.FindSubmatch(found)
		if i, ok := p.Images[string(m[1])+"/"+string(m[2])]; ok {
			return []byte(i.Ref())
		}
		return found // a part that is neither built nor used
	})
	manifest = requests.ReplaceAll(manifest, []byte("${1}10m"))
	if bytes.Contains(manifest, []byte("\nkind: Deployment\n")) { // the schemas of the CRDs have a field of that name too
		manifest = withoutLiveness(manifest)
	}
	return manifest
}

// withoutLiveness removes the liveness probes. On a busy machine a pod answers them
// late, and the kubelet would restart it. During a restart of Eventing's webhook, no
// object can be applied.
func withoutLiveness(manifest []byte) []byte {
	var rest []byte
	probe := -1 // the indentation of the probe that is being removed
	for line := range bytes.Lines(manifest) {
		indentation := len(line) - len(bytes.TrimLeft(line, " "))
		if probe >= 0 && (indentation > probe || len(bytes.TrimSpace(line)) == 0) {
			continue
		}
		probe = -1
		if bytes.Equal(bytes.TrimSpace(line), []byte("livenessProbe:")) {
			probe = indentation
			continue
		}
		rest = append(rest, line...)
	}
	return rest
}

func (p Platform) apply(ctx context.Context, manifests [][]byte) error {
	var all bytes.Buffer
	for _, m := range manifests {
		all.Write(p.rewrite(m))
		all.WriteString("\n---\n")
	}
	_, err := p.Node.Kubectl(ctx, &all, "apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
}

func (p Platform) applyOwn(ctx context.Context, name string) error {
	manifest, err := template.ParseFS(files, "files/"+name)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := manifest.Execute(&text, p); err != nil {
		return err
	}
	// an own field manager, because Knative manages the other fields of the ConfigMaps
	_, err = p.Node.Kubectl(ctx, &text, "apply", "--server-side", "--force-conflicts", "--field-manager=ticketing-auth", "-f", "-")
	return err
}

// waitForServiceAccount waits until the controller has created the default service
// account, which pods without their own use.
func (p Platform) waitForServiceAccount(ctx context.Context) error {
	for {
		_, err := p.Node.Kubectl(ctx, nil, "--namespace=kube-system", "get", "serviceaccount", "default")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}
