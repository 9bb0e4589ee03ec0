package scripts_test

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/knative"
	"ticketing.com/auth/infra/local/mailbox"
	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// The scripts run against BASE_URL or, if it is not set, against the local runner.
func TestScripts(t *testing.T) {
	base := os.Getenv("BASE_URL")
	if base == "" {
		url, interrupt := e2e.StartLocal(t, filepath.Join(t.TempDir(), "data"), "RATE_LIMIT=off")
		t.Cleanup(interrupt) // the scripts run in parallel, after this function has returned
		base = url
	}
	testscript.Run(t, scriptParams(t, ".", base, os.Getenv("HOST_HEADER")))
}

// With KINGRESS_URL the scripts about routes also run through a Knative Ingress. The functions behind
// it are those of TestScripts.
func TestScripts_KnativeIngress(t *testing.T) {
	url := os.Getenv("KINGRESS_URL")
	if url == "" {
		t.Skip("KINGRESS_URL is not set")
	}
	params := scriptParams(t, ".", url, knative.Host)
	if params.Dir != "" {
		params.Dir, params.Files = "", []string{"conversation.txt", "errors.txt", "event-receiver.txt"}
	}
	testscript.Run(t, params)
}

// The cluster scripts run if KUBECONFIG names a cluster for tests. They run one at a time,
// because they scale functions to zero, disconnect the broker and the database, and rotate
// the keys.
func TestScripts_Cluster(t *testing.T) {
	needsTestCluster(t)
	testscript.RunT(sequential{t}, scriptParams(t, "cluster", os.Getenv("BASE_URL"), os.Getenv("HOST_HEADER")))
}

// needsTestCluster skips the test unless there is a cluster whose namespace is labelled for
// tests.
func needsTestCluster(t *testing.T) {
	t.Helper()
	if is, _ := condition("cluster"); !is {
		t.Skip("BASE_URL or KUBECONFIG is not set, or kubectl is not on the PATH")
	}
	cmd := exec.Command("kubectl", "get", "namespace", knative.Namespace, "--output=jsonpath={.metadata.labels}")
	labels, err := cmd.Output()
	if err != nil {
		t.Fatalf("read the labels of the namespace: %v", err)
	}
	if !strings.Contains(string(labels), `"ticketing.com/for-tests":"true"`) {
		t.Skip("the scripts break things, and the namespace lacks the label ticketing.com/for-tests=true, which the overlay e2e sets")
	}
}

// A real API server validates every overlay: schemas, the rules of the CRDs, Knative's webhooks.
// The test uses a fresh namespace in place of the user's. It has the service accounts, because
// the webhooks read them.
func TestOverlays_ServerDryRun(t *testing.T) {
	needsTestCluster(t)
	overlays, err := filepath.Glob("../../knative/overlays/*")
	if err != nil || len(overlays) == 0 {
		t.Fatalf("got no overlays: %v", err)
	}
	for _, overlay := range slices.Clone(overlays) { // an example extends the overlay of the same name
		examples, err := filepath.Glob("../../examples/*/k8s/" + filepath.Base(overlay))
		if err != nil {
			t.Fatal(err)
		}
		overlays = append(overlays, examples...)
	}
	const fresh = knative.Namespace + "-dry-run"
	var created []string
	t.Cleanup(func() {
		if len(created) > 0 {
			run(t, "", append([]string{"delete", "namespace"}, created...)...)
		}
	})
	makeNamespace := func(name string) {
		if exec.Command("kubectl", "get", "namespace", name).Run() == nil {
			return
		}
		run(t, "", "create", "namespace", name)
		created = append(created, name)
	}
	makeNamespace(fresh)
	for _, overlay := range overlays {
		t.Run(strings.TrimPrefix(overlay, "../../"), func(t *testing.T) {
			manifests := run(t, "", "kustomize", overlay)
			manifests = strings.ReplaceAll(manifests, "ko://", "dev.local/")
			manifests = strings.ReplaceAll(manifests, "amespace: "+knative.Namespace+"\n", "amespace: "+fresh+"\n") // serviceNamespace too
			for _, m := range regexp.MustCompile(`(?m)^  namespace: (\S+)$`).FindAllStringSubmatch(manifests, -1) {
				if !slices.Contains(created, m[1]) {
					makeNamespace(m[1])
				}
			}
			var accounts, known []string
			for document := range strings.SplitSeq(manifests, "\n---\n") {
				if strings.Contains("\n"+document, "\nkind: ServiceAccount\n") {
					accounts = append(accounts, document)
				}
				// The cluster has no Knative RabbitMQ Broker, so its API server does not know
				// this kind. TestOverlays_DurableBroker checks it.
				if !strings.Contains("\n"+document, "\nkind: RabbitmqBrokerConfig\n") {
					known = append(known, document)
				}
			}
			run(t, strings.Join(accounts, "\n---\n"), "apply", "-f", "-")
			run(t, strings.Join(known, "\n---\n"), "apply", "--dry-run=server", "-f", "-")
		})
	}
}

// run runs kubectl and returns its output, or fails the test.
func run(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		cmd := exec.Command("kubectl", args...)
		cmd.Stdin = strings.NewReader(stdin)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err == nil {
			return string(out)
		}
		if !webhookUnavailable(stderr.String()) || time.Now().After(end) {
			t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
		}
	}
}

// A sequential runs the scripts of a test one after the other.
type sequential struct{ *testing.T }

func (sequential) Parallel()     {}
func (sequential) Verbose() bool { return testing.Verbose() }
func (t sequential) Run(name string, part func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { part(sequential{t}) })
}

// One process that serves every route responds as the functions do.
func TestScripts_AllInOne(t *testing.T) {
	if os.Getenv("BASE_URL") != "" {
		t.Skip("BASE_URL names another system")
	}
	uri, keys := mongotest.URI(t), t.TempDir()
	if err := keyring.Create(keys, "EdDSA", time.Now()); err != nil {
		t.Fatal(err)
	}
	if code, stderr := e2e.Run(t, []string{"MONGODB_URI=" + uri}, "migrate"); code != 0 {
		t.Fatalf("migrate: got exit code %d, want 0: %s", code, stderr)
	}
	box, err := mailbox.Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(box.Stop)
	mailKeys, err := keyring.EnsureMail(keys)
	if err != nil {
		t.Fatal(err)
	}
	p := e2e.Start(t, "allinone", "MONGODB_URI="+uri, "EVENTS=insecure", "RATE_LIMIT=off",
		"SMTP_URL="+box.URL(), "MAIL_KEYS_FILE="+mailKeys, "MAIL_FROM=no-reply@ticketing.example", "PUBLIC_URL=https://ticketing.example",
		"SIGNING_KEYS_FILE="+filepath.Join(keys, keyring.SigningFile),
		"VERIFYING_KEYS_FILE="+filepath.Join(keys, keyring.VerifyingFile))
	params := scriptParams(t, ".", p.URL, "")
	setup := params.Setup
	params.Setup = func(env *testscript.Env) error {
		err := setup(env)
		env.Values[key{}].(*client).box = box
		return err
	}
	testscript.Run(t, params)
}

// scriptParams returns the parameters for the scripts of a folder, or for the script that
// SCRIPT names.
func scriptParams(t *testing.T, dir, base, host string) testscript.Params {
	params := testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                verbs(),
		Condition:           condition,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars,
				"KUBECONFIG="+os.Getenv("KUBECONFIG"),
				"KUBECACHEDIR="+filepath.Join(env.WorkDir, "kubectl"),
				"ANN=ann-"+strings.ToLower(rand.Text())+"@example.com", // the database may have users of earlier runs
				"BOB=bob-"+strings.ToLower(rand.Text())+"@example.com",
				"PASSWORD=correct-horse-battery-staple",
			)
			c := &client{t: t, base: base, host: host, began: time.Now()}
			env.Values[key{}] = c
			env.Defer(func() { c.load.end() })
			return nil
		},
	}
	if only := os.Getenv("SCRIPT"); only != "" {
		if filepath.Dir(only) != dir {
			t.Skipf("SCRIPT names only %s", only)
		}
		params.Dir, params.Files = "", []string{only}
	}
	return params
}

// condition evaluates [cluster]: the system is not the local runner, and kubectl can reach its
// cluster. KUBECONFIG alone does not suffice; many users set it for another reason. It also
// evaluates [tickets]: the cluster runs the example service.
func condition(name string) (bool, error) {
	switch name {
	case "tickets":
		return exec.Command("kubectl", "--namespace="+knative.Namespace, "get", "services.serving.knative.dev/tickets").Run() == nil, nil
	case "cluster":
		_, err := exec.LookPath("kubectl")
		return os.Getenv("BASE_URL") != "" && os.Getenv("KUBECONFIG") != "" && err == nil, nil
	}
	return false, nil
}
