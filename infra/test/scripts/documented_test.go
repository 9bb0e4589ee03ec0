package scripts_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/knative"
)

// The pages of infra/docs whose commands run here.
const (
	deployKn   = "deploy-kn.md"
	deployFunc = "deploy-func.md"
	keysPage   = "keys.md"
	rollback   = "rollback.md"
)

// The documented commands run as written, on functions that are not deployed yet. The result
// serves the conversation.
func TestDocumentedCommands_Kn(t *testing.T) {
	d := newDocumented(t, "kn")
	d.run(t, d.root, "kubectl apply -f infra/knative/accounts.yaml")
	applied := commands(t, deployKn, "kn service apply ")
	if len(applied) != len(catalog.Functions())+1 {
		t.Fatalf("got %d commands, want one for each of %d functions and one for the process that serves every route", len(applied), len(catalog.Functions()))
	}
	d.removeServices(t)
	functions, auth := applied[:len(applied)-1], applied[len(applied)-1]
	for _, command := range functions {
		d.run(t, d.folder, command)
	}
	d.runConversation(t, os.Getenv("BASE_URL"), os.Getenv("HOST_HEADER"))
	rotated := commands(t, keysPage, "kn service update signin --namespace ticketing --annotation-revision keys=")
	if len(rotated) != 1 {
		t.Fatalf("keys.md has %d commands for a step of a key rotation, want 1", len(rotated))
	}
	d.removeServices(t, slices.DeleteFunc(names(), func(name string) bool { return name == "signin" })...)
	d.run(t, d.folder, rotated[0])
	if got := d.get(t, "revisions.serving.knative.dev", d.get(t, "ksvc", "signin", "{.status.latestReadyRevisionName}"), "{.metadata.annotations.keys}"); got != "2" {
		t.Errorf("after %q the annotation keys of the latest ready revision is %q, want 2", rotated[0], got)
	}
	d.removeServices(t)
	d.run(t, d.folder, auth)
	d.runConversationWithAuth(t)
}

// The documented commands run a rollback and end it.
func TestDocumentedCommands_Rollback(t *testing.T) {
	d := newDocumented(t, "kn")
	redeploy := commands(t, keysPage, "kn service update signin --namespace ticketing --annotation-revision keys=")[0]
	d.run(t, d.folder, strings.ReplaceAll(redeploy, "signin", "currentuser"))
	latest := d.get(t, "ksvc", "currentuser", "{.status.latestReadyRevisionName}")
	revisions := strings.Fields(d.get(t, "revisions.serving.knative.dev", "--selector=serving.knative.dev/service=currentuser", "{.items[*].metadata.name}"))
	old := revisions[slices.IndexFunc(revisions, func(name string) bool { return name != latest })]
	want := []string{"", old + "=90 " + latest + "=10", old + "=100", latest + "=100"}
	documented := append(commands(t, rollback, "kn revision list "), commands(t, rollback, "kn service update ")...)
	if len(documented) != len(want) {
		t.Fatalf("rollback.md has %d commands of kn, want %d", len(documented), len(want))
	}
	for i, command := range documented {
		output := d.run(t, d.folder, strings.NewReplacer("currentuser-00001", old, "currentuser-00002", latest).Replace(command))
		if i == 0 {
			if !strings.Contains(output, old) || !strings.Contains(output, latest) {
				t.Errorf("%s does not list %s and %s:\n%s", command, old, latest, output)
			}
			continue
		}
		if got := d.get(t, "ksvc", "currentuser", `{range .status.traffic[*]}{.revisionName}={.percent} {end}`); strings.TrimSpace(got) != want[i] {
			t.Errorf("after %q the traffic is %q, want %q", command, got, want[i])
		}
	}
}

// func deploys existing images. The command of kn behind it sets the options that func lacks.
func TestDocumentedCommands_Func(t *testing.T) {
	d := newDocumented(t, "func", "kn")
	for _, command := range commands(t, deployFunc, "kubectl apply ") {
		d.run(t, d.root, command)
	}
	d.removeServices(t, "signin")
	deployed := commands(t, deployFunc, "func deploy ")
	updated := commands(t, deployFunc, "kn service update ")
	if len(deployed) != 2 {
		t.Fatalf("deploy-func.md has %d commands of func, want 2", len(deployed))
	}
	for _, command := range deployed {
		name := "auth"
		if _, path, found := strings.Cut(command, "--path functions/"); found {
			name = path
		}
		d.run(t, d.folder, command)
		i := slices.IndexFunc(updated, func(update string) bool {
			return strings.Contains(update, " "+name+" ") && strings.Contains(update, "--timeout")
		})
		if i < 0 {
			t.Fatalf("deploy-func.md has no command of kn for %q", command)
		}
		d.run(t, d.folder, updated[i])
		for field, want := range map[string]string{
			"{.spec.template.spec.timeoutSeconds}": "15",
			`{.spec.template.metadata.annotations.autoscaling\.knative\.dev/scale-to-zero-pod-retention-period}`: "1m",
			`{.status.conditions[?(@.type=="Ready")].status}`:                                                    "True",
		} {
			if got := d.get(t, "ksvc", name, field); got != want {
				t.Errorf("%s of %s is %q, want %q", field, name, got, want)
			}
		}
		if name == "auth" {
			d.runConversationWithAuth(t)
		} else {
			d.runConversation(t, os.Getenv("BASE_URL"), os.Getenv("HOST_HEADER"))
		}
		d.removeServices(t, name)
	}
}

// documented runs commands of the documents.
type documented struct {
	root   string // of the repository
	folder string // has a copy of each func.yaml: func deploy rewrites it
	env    []string
}

// newDocumented skips the test if a program is missing. After the test it restores the deployed
// Services.
func newDocumented(t *testing.T, programs ...string) documented {
	t.Helper()
	needsTestCluster(t)
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not on the PATH", program)
		}
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	d := documented{root: root, folder: t.TempDir()}
	found, err := filepath.Glob(filepath.Join(root, "functions", "*", "func.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(found, filepath.Join(root, "func.yaml")) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		relative, _ := filepath.Rel(root, file)
		copied := filepath.Join(d.folder, relative)
		if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// This ko prints the name of an image that is on the nodes.
	programsFolder := t.TempDir()
	const ko = "#!/bin/sh\nkubectl get nodes --output='jsonpath={range .items[*].status.images[*].names[*]}{@}{\"\\n\"}{end}' | grep -m1 \"/$(basename \"$2\")[:-]\"\n"
	if err := os.WriteFile(filepath.Join(programsFolder, "ko"), []byte(ko), 0o755); err != nil {
		t.Fatal(err)
	}
	d.env = append(os.Environ(), "PATH="+programsFolder+string(os.PathListSeparator)+os.Getenv("PATH"), "HOME="+t.TempDir())
	d.restoreServices(t)
	return d
}

// names returns the names of the documented Services.
func names() []string {
	all := []string{"auth"}
	for _, e := range catalog.Functions() {
		all = append(all, e.Name)
	}
	return all
}

// removeServices removes Services and waits until their pods are gone. A small node does not have
// enough memory for these and others.
func (d documented) removeServices(t *testing.T, services ...string) {
	t.Helper()
	if len(services) == 0 {
		services = names()
	}
	run(t, "", append([]string{"--namespace", knative.Namespace, "delete", "ksvc", "--ignore-not-found", "--cascade=foreground"}, services...)...)
}

// restoreServices deploys the present Services again at the end of the test.
func (d documented) restoreServices(t *testing.T) {
	t.Helper()
	var list struct {
		APIVersion string           `json:"apiVersion"`
		Kind       string           `json:"kind"`
		Items      []map[string]any `json:"items"`
	}
	if err := json.Unmarshal([]byte(run(t, "", "--namespace", knative.Namespace, "get", "ksvc", "--output=json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, service := range list.Items {
		delete(service, "status")
		metadata := service["metadata"].(map[string]any)
		for _, name := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"} {
			delete(metadata, name)
		}
		annotations, _ := metadata["annotations"].(map[string]any)
		for _, name := range []string{"serving.knative.dev/creator", "serving.knative.dev/lastModifier"} {
			delete(annotations, name)
		}
	}
	deployed, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.removeServices(t)
		run(t, string(deployed), "apply", "-f", "-")
		run(t, "", "--namespace", knative.Namespace, "wait", "--for=condition=Ready", "--timeout=300s", "ksvc", "--all")
	})
}

// run runs a documented command in a shell and returns its output.
func (d documented) run(t *testing.T, dir, command string) string {
	t.Helper()
	start := time.Now()
	for {
		cmd := exec.Command("bash", "-ec", command)
		cmd.Dir, cmd.Env = dir, d.env
		output, err := cmd.CombinedOutput()
		switch {
		case err == nil:
			t.Logf("%s (%s)", command, time.Since(start).Round(time.Second))
			return string(output)
		case !webhookUnavailable(string(output)) || time.Since(start) > time.Minute:
			t.Fatalf("%s: %v\n%s", command, err, output)
		}
		time.Sleep(time.Second)
	}
}

func (d documented) get(t *testing.T, kind, selector, field string) string {
	t.Helper()
	return run(t, "", "--namespace", knative.Namespace, "get", kind, selector, "--output=jsonpath="+field)
}

// runConversation runs the script conversation.txt.
func (d documented) runConversation(t *testing.T, base, host string) {
	t.Helper()
	params := scriptParams(t, ".", base, host)
	params.Dir, params.Files = "", []string{"conversation.txt"}
	testscript.RunT(sequential{t}, params)
}

// runConversationWithAuth runs the conversation against the Service that serves every route.
func (d documented) runConversationWithAuth(t *testing.T) {
	t.Helper()
	address, err := url.Parse(d.get(t, "ksvc", "auth", "{.status.url}"))
	if err != nil {
		t.Fatal(err)
	}
	base := os.Getenv("KINGRESS_URL")
	if base == "" {
		base = os.Getenv("BASE_URL")
	}
	d.runConversation(t, base, address.Host)
}

// commands returns the commands of a page of infra/docs that begin with prefix: lines of a code
// block, or text between backquotes.
func commands(t *testing.T, document, prefix string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", document))
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.QuoteMeta(prefix)
	pattern := fmt.Sprintf("(?m)^ *(%s(?:.*\\\\\\n)*.*)$|`(%s[^`]*)`", quoted, quoted)
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
		all = append(all, m[1]+m[2])
	}
	return all
}
