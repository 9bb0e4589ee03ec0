package scripts_test

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/knative"
	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// The scripts are played against BASE_URL, or, if there is none, against the local
// runner.
func TestScripts(t *testing.T) {
	base := os.Getenv("BASE_URL")
	if base == "" {
		url, interrupt := e2e.StartLocal(t, filepath.Join(t.TempDir(), "data"), "RATE_LIMIT=off")
		t.Cleanup(interrupt) // scripts are played at the same time, after this function
		base = url
	}
	testscript.Run(t, played(t, ".", base, os.Getenv("HOST_HEADER")))
}

// The ingress takes the routes in another form as well, where KINGRESS_URL says so.
func TestScripts_KnativeIngress(t *testing.T) {
	url := os.Getenv("KINGRESS_URL")
	if url == "" {
		t.Skip("left out, since KINGRESS_URL names no ingress")
	}
	testscript.Run(t, played(t, ".", url, knative.Host))
}

// What only a cluster can do is played where KUBECONFIG names one that is there for it,
// one script at a time: they put functions to sleep, cut the broker and the database off,
// and rotate the keys.
func TestScripts_Cluster(t *testing.T) {
	needsTestCluster(t)
	testscript.RunT(oneByOne{t}, played(t, "cluster", os.Getenv("BASE_URL"), os.Getenv("HOST_HEADER")))
}

// needsTestCluster skips a test where there is no cluster whose namespace is labelled for
// tests.
func needsTestCluster(t *testing.T) {
	t.Helper()
	if is, _ := condition("cluster"); !is {
		t.Skip("left out, since BASE_URL and KUBECONFIG name no cluster that has the system, or there is no kubectl")
	}
	cmd := exec.Command("kubectl", "get", "namespace", knative.Namespace, "--output=jsonpath={.metadata.labels}")
	labels, err := cmd.Output()
	if err != nil {
		t.Fatalf("ask whether the cluster is for tests: %v", err)
	}
	if !strings.Contains(string(labels), `"ticketing.com/for-tests":"true"`) {
		t.Skip("left out, since they break things, and the namespace is not labelled ticketing.com/for-tests=true, as the overlay e2e does")
	}
}

// A real API server judges every overlay: schemas, the CRDs' own rules, Knative's webhooks.
// A fresh namespace stands for that of its user's cluster, with the service accounts, which
// the webhooks look up.
func TestOverlays_ServerDryRun(t *testing.T) {
	needsTestCluster(t)
	overlays, err := filepath.Glob("../../knative/overlays/*")
	if err != nil || len(overlays) == 0 {
		t.Fatalf("no overlays are found: %v", err)
	}
	const fresh = knative.Namespace + "-dry-run"
	makeNamespace(t, fresh)
	for _, overlay := range overlays {
		t.Run(filepath.Base(overlay), func(t *testing.T) {
			manifests := run(t, "", "kustomize", overlay)
			manifests = strings.ReplaceAll(manifests, "ko://", "dev.local/")
			manifests = strings.ReplaceAll(manifests, "amespace: "+knative.Namespace+"\n", "amespace: "+fresh+"\n") // serviceNamespace too
			for _, m := range regexp.MustCompile(`(?m)^  namespace: (\S+)$`).FindAllStringSubmatch(manifests, -1) {
				makeNamespace(t, m[1])
			}
			var accounts []string
			for document := range strings.SplitSeq(manifests, "\n---\n") {
				if strings.Contains("\n"+document, "\nkind: ServiceAccount\n") {
					accounts = append(accounts, document)
				}
			}
			run(t, strings.Join(accounts, "\n---\n"), "apply", "-f", "-")
			run(t, manifests, "apply", "--dry-run=server", "-f", "-")
		})
	}
}

// makeNamespace creates a namespace that the cluster does not have, for the time of a test.
func makeNamespace(t *testing.T, name string) {
	t.Helper()
	if exec.Command("kubectl", "get", "namespace", name).Run() == nil {
		return
	}
	run(t, "", "create", "namespace", name)
	t.Cleanup(func() { run(t, "", "delete", "namespace", name, "--wait=false") })
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
		if !isWebhookAway(stderr.String()) || time.Now().After(end) {
			t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
		}
	}
}

// oneByOne is a test whose parts are not played at the same time.
type oneByOne struct{ *testing.T }

func (oneByOne) Parallel()     {}
func (oneByOne) Verbose() bool { return testing.Verbose() }
func (t oneByOne) Run(name string, part func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { part(oneByOne{t}) })
}

// One process that serves every route answers as the functions do.
func TestScripts_AllInOne(t *testing.T) {
	if os.Getenv("BASE_URL") != "" {
		t.Skip("BASE_URL names the system to play against")
	}
	uri, keys := mongotest.URI(t), t.TempDir()
	if err := keyring.Create(keys, time.Now()); err != nil {
		t.Fatal(err)
	}
	if code, stderr := e2e.Run(t, []string{"MONGODB_URI=" + uri}, "migrate"); code != 0 {
		t.Fatal(stderr)
	}
	p := e2e.Start(t, "allinone", "MONGODB_URI="+uri, "EVENTS=insecure", "RATE_LIMIT=off",
		"SIGNING_KEYS_FILE="+filepath.Join(keys, keyring.SigningFile),
		"VERIFYING_KEYS_FILE="+filepath.Join(keys, keyring.VerifyingFile))
	testscript.Run(t, played(t, ".", p.URL, ""))
}

// played are the texts of a folder, or the one of them that SCRIPT names.
func played(t *testing.T, dir, base, host string) testscript.Params {
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
				"ANN=ann-"+strings.ToLower(rand.Text())+"@example.com", // the database may remember other runs
				"BOB=bob-"+strings.ToLower(rand.Text())+"@example.com",
				"PASSWORD=correct-horse-battery-staple",
			)
			c := &caller{t: t, base: base, host: host, began: time.Now()}
			env.Values[key{}] = c
			env.Defer(func() { c.load.end() })
			return nil
		},
	}
	if only := os.Getenv("SCRIPT"); only != "" {
		if filepath.Dir(only) != dir {
			t.Skipf("SCRIPT names %s alone", only)
		}
		params.Dir, params.Files = "", []string{only}
	}
	return params
}

// condition knows [cluster]: the system is not the local runner, and there is a Kubernetes
// to speak to. Many have KUBECONFIG set for another reason.
func condition(name string) (bool, error) {
	switch name {
	case "cluster":
		_, err := exec.LookPath("kubectl")
		return os.Getenv("BASE_URL") != "" && os.Getenv("KUBECONFIG") != "" && err == nil, nil
	}
	return false, nil
}
