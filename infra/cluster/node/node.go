//go:build linux

// Package node runs a Kubernetes node on a plain Linux host, as root: etcd, containerd,
// the control plane, a kubelet and kube-proxy. The node has its own network, PID, mount,
// IPC and UTS namespaces. A veth pair connects it to the host. The host reaches the API
// server and the ingress through that pair.
//
// The first process of the namespaces is this program again (see Inside). When it ends,
// the kernel kills all other processes of the PID namespace. With the last process, the
// namespaces disappear, with their mounts and links. Only a folder, a cgroup and the
// sysctls of the kubelet are outside of them. Stop removes the folder and the cgroup, and
// restores the sysctls.
//
// The package is for infra/cluster, which installs Knative and the system on the node.
// The cluster is only for tests and development. etcd does not sync, every client is
// administrator, and there is no route to the internet. kube-router's controller
// enforces NetworkPolicies.
package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

const (
	Address    = "10.250.0.2" // of the node, in the veth pair
	host       = "10.250.0.1" // of the host, in the veth pair
	link       = "ticketing0" // the host's end of the veth pair; it exists while a cluster is up
	pods       = "10.244.0.0/24"
	services   = "10.96.0.0/16"
	apiService = "10.96.0.1"
	DNS        = "10.96.0.10" // the DNS server of the pods; package install starts it
	name       = "node"
	cgroup     = "ticketing-auth"
	plugins    = "/usr/lib/cni" // the path in Debian's package
)

// NoProxy is a value for NO_PROXY: the addresses of the node, its Services and its pods,
// and the suffixes of their names.
const NoProxy = Address + "," + services + "," + pods + ",.svc,.cluster.local"

// A Node is the node with its files in Dir.
type Node struct {
	Dir string

	// Program returns the path of a built program, such as "kubelet".
	Program func(name string) string

	// Pause is the image that holds a pod's namespaces.
	Pause string
}

// Kubeconfig returns the path of the kubectl configuration of the administrator.
func (n Node) Kubeconfig() string { return filepath.Join(n.Dir, "kubeconfig") }

// Bin returns a folder that contains only a kubectl of the cluster's version.
func (n Node) Bin() string { return filepath.Join(n.Dir, "bin") }

// KubectlCache returns kubectl's cache folder. Each cluster has its own, because kubectl
// caches by address, and another cluster with the same address may differ.
func (n Node) KubectlCache() string { return filepath.Join(n.Dir, "kubectl") }

func (n Node) kubectl() string { return filepath.Join(n.Bin(), "kubectl") }

// Logs returns the folder of the logs of the node's processes.
func (n Node) Logs() string { return filepath.Join(n.Dir, "logs") }

//go:embed files
var files embed.FS

var templates = template.Must(template.ParseFS(files, "files/*"))

// prepare writes all files that the node's processes read.
func (n Node) prepare() error {
	for _, dir := range []string{"pki", "logs", "bin", "config/cni", "containerd", "kubelet", "etcd", "volume-plugins"} {
		if err := os.MkdirAll(filepath.Join(n.Dir, filepath.FromSlash(dir)), 0o700); err != nil {
			return err
		}
	}
	ca, admin, err := writePKI(filepath.Join(n.Dir, "pki"))
	if err != nil {
		return err
	}
	values := map[string]string{
		"Address": Address, "Dir": n.Dir, "Cgroup": cgroup, "DNS": DNS, "Pods": pods, "Pause": n.Pause,
		"CNI": plugins, "Snapshotter": snapshotter(n.Dir),
		"CA":          base64.StdEncoding.EncodeToString(ca),
		"Certificate": base64.StdEncoding.EncodeToString(admin.certificate),
		"Key":         base64.StdEncoding.EncodeToString(admin.key),
	}
	for from, to := range map[string]string{
		"kubeconfig.yaml": "kubeconfig", "kubelet.yaml": "config/kubelet.yaml", "kube-proxy.yaml": "config/kube-proxy.yaml",
		"containerd.toml": "config/containerd.toml", "resolv.conf": "config/resolv.conf", "10-ptp.conflist": "config/cni/10-ptp.conflist",
	} {
		var text bytes.Buffer
		if err := templates.ExecuteTemplate(&text, from, values); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(n.Dir, filepath.FromSlash(to)), text.Bytes(), 0o600); err != nil {
			return err
		}
	}
	if err := os.Symlink(n.Program("kubectl"), n.kubectl()); err != nil {
		return err
	}
	plan, err := json.MarshalIndent(n.processes(), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(n.plan(), plan, 0o600)
}

// plan returns the path of the file that lists the processes for Inside.
func (n Node) plan() string { return filepath.Join(n.Dir, "processes.json") }

// A process is one of the node's processes. Inside starts those with AfterAPI when the
// API server is ready.
type process struct {
	Name     string
	Path     string
	Args     []string
	AfterAPI bool `json:",omitempty"`
}

func (n Node) processes() []process {
	pki := func(name string) string { return filepath.Join(n.Dir, "pki", name) }
	config := func(name string) string { return filepath.Join(n.Dir, "config", name) }
	client := func(flags ...string) []string { // a client of the API server
		return append(flags, "--kubeconfig="+n.Kubeconfig())
	}
	const etcd = "http://127.0.0.1:2379"
	return []process{
		{Name: "etcd", Path: "etcd", Args: []string{
			"--data-dir=" + filepath.Join(n.Dir, "etcd"), "--unsafe-no-fsync",
			"--listen-client-urls=" + etcd, "--advertise-client-urls=" + etcd, "--listen-peer-urls=http://127.0.0.1:2380",
		}},
		{Name: "containerd", Path: "containerd", Args: []string{"--config", config("containerd.toml")}},
		{Name: "kube-apiserver", Path: n.Program("kube-apiserver"), Args: []string{
			"--etcd-servers=" + etcd, "--service-cluster-ip-range=" + services,
			"--advertise-address=" + Address, "--secure-port=6443",
			"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"), "--client-ca-file=" + pki("ca.crt"),
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-signing-key-file=" + pki("accounts.key"), "--service-account-key-file=" + pki("accounts.pub"),
			"--kubelet-client-certificate=" + pki("admin.crt"), "--kubelet-client-key=" + pki("admin.key"),
			"--kubelet-preferred-address-types=InternalIP", "--authorization-mode=Node,RBAC", "--allow-privileged=true",
		}},
		{AfterAPI: true, Name: "kube-controller-manager", Path: n.Program("kube-controller-manager"), Args: client(
			"--authentication-kubeconfig="+n.Kubeconfig(), "--authorization-kubeconfig="+n.Kubeconfig(), "--leader-elect=false",
			"--root-ca-file="+pki("ca.crt"), "--service-account-private-key-file="+pki("accounts.key"), "--use-service-account-credentials",
			"--cluster-signing-cert-file="+pki("ca.crt"), "--cluster-signing-key-file="+pki("ca.key"), "--bind-address=127.0.0.1",
			"--flex-volume-plugin-dir="+filepath.Join(n.Dir, "volume-plugins"),
		)},
		{AfterAPI: true, Name: "kube-scheduler", Path: n.Program("kube-scheduler"), Args: client(
			"--authentication-kubeconfig="+n.Kubeconfig(), "--authorization-kubeconfig="+n.Kubeconfig(), "--leader-elect=false", "--bind-address=127.0.0.1",
		)},
		{AfterAPI: true, Name: "kubelet", Path: n.Program("kubelet"), Args: client(
			"--config="+config("kubelet.yaml"), "--hostname-override="+name, "--node-ip="+Address, "--root-dir="+filepath.Join(n.Dir, "kubelet"),
		)},
		{AfterAPI: true, Name: "netpol", Path: n.Program("netpol"), Args: []string{
			"-kubeconfig=" + n.Kubeconfig(), "-hostname-override=" + name, "-services=" + services,
		}},
		{AfterAPI: true, Name: "kube-proxy", Path: n.Program("kube-proxy"), Args: []string{
			"--config=" + config("kube-proxy.yaml"), "--hostname-override=" + name,
		}},
	}
}

// waitForAPI waits until the API server is ready.
func (n Node) waitForAPI(ctx context.Context, address string) error {
	ca, err := os.ReadFile(filepath.Join(n.Dir, "pki", "ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	for {
		response, err := client.Get("https://" + address + ":6443/readyz")
		if err == nil {
			body, _ := io.ReadAll(io.LimitReader(response.Body, 200))
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("%s: %s", response.Status, body)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API server is not ready: %w (%w)", context.Cause(ctx), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
