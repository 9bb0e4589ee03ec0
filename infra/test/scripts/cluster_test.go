package scripts_test

import (
	"bufio"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ticketing.com/auth/infra/keys/keyring"
)

// Verbs of a cluster. What they do to it they do with kubectl, so any will do.

func kubectl(ts *testscript.TestScript, _ *caller, args []string) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		err := ts.Exec("kubectl", append([]string{"--namespace", "ticketing"}, args...)...)
		if err == nil || !isWebhookAway(ts.ReadFile("stderr")) || time.Now().After(end) {
			return err
		}
	}
}

// isWebhookAway reports whether a request failed because no pod of a webhook answered, which
// is so for a moment when a pod of it has just been replaced.
func isWebhookAway(stderr string) bool { return strings.Contains(stderr, "failed calling webhook") }

// ask is kubectl whose answer is wanted, and not in the script's log.
func ask(ts *testscript.TestScript, args ...string) (string, error) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		cmd := exec.Command("kubectl", append([]string{"--namespace=ticketing"}, args...)...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+ts.Getenv("KUBECONFIG"))
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err == nil {
			return string(out), nil
		}
		if !isWebhookAway(stderr.String()) || time.Now().After(end) {
			return "", fmt.Errorf("kubectl %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
		}
	}
}

// counting is a verb that counts a function's pods, but for those that are left out.
func counting(verb string, leftOut func(pod) bool) func(*testscript.TestScript, *caller, []string) error {
	return func(ts *testscript.TestScript, _ *caller, args []string) error {
		if len(args) != 2 {
			return fmt.Errorf("usage: %s FUNCTION COUNT", verb)
		}
		wanted, more := strings.CutSuffix(args[1], "+")
		want, err := strconv.Atoi(wanted)
		if err != nil {
			return err
		}
		all, err := podsOf(ts, args[0])
		if err != nil {
			return err
		}
		if got := len(slices.DeleteFunc(all, leftOut)); got != want && !(more && got > want) {
			err = fmt.Errorf("%s has %d", args[0], got)
		}
		return err
	}
}

// A pod is what kubectl says of one.
type pod struct {
	Metadata struct{ Name, DeletionTimestamp string }
	Spec     struct{ NodeName string }
	Status   struct {
		Conditions        []struct{ Type, Status string }
		ContainerStatuses []struct {
			Name, ContainerID string
			State, LastState  struct {
				Terminated struct {
					ContainerID string
					ExitCode    int
				}
			}
		}
	}
}

func podsOf(ts *testscript.TestScript, function string) ([]pod, error) {
	out, err := ask(ts, "get", "pods", "--output=json", "--selector=serving.knative.dev/service="+function)
	if err != nil {
		return nil, err
	}
	var all struct{ Items []pod }
	err = json.Unmarshal([]byte(out), &all)
	return all.Items, err
}

// isAway tells of a pod that no call reaches: it is not ready, or told to go.
func (p pod) isAway() bool {
	ready := slices.ContainsFunc(p.Status.Conditions, func(c struct{ Type, Status string }) bool {
		return c.Type == "Ready" && c.Status == "True"
	})
	return !ready || p.Metadata.DeletionTimestamp != ""
}

// sigkill kills from the node, by a pod that sees its processes: to delete a pod, however
// hastily, is to ask its processes first. The kubelet's word for it is exit code 137.
func sigkill(ts *testscript.TestScript, _ *caller, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: sigkill FUNCTION")
	}
	image, err := listenerImage(ts)
	if err != nil {
		return err
	}
	all, err := podsOf(ts, args[0])
	if err != nil {
		return err
	}
	killed := 0
	for _, p := range slices.DeleteFunc(all, pod.isAway) {
		for _, c := range p.Status.ContainerStatuses {
			if c.Name != "user-container" {
				continue
			}
			if err := killContainer(ts, image, p.Spec.NodeName, c.ContainerID); err != nil {
				return err
			}
			if err := died(ts, args[0], c.ContainerID); err != nil {
				return err
			}
			killed++
		}
	}
	if killed == 0 {
		return fmt.Errorf("%s has no pod that serves", args[0])
	}
	return nil
}

func killContainer(ts *testscript.TestScript, image, node, container string) error {
	_, id, _ := strings.Cut(container, "://")
	_, err := runPod(ts, image, map[string]any{"nodeName": node, "hostPID": true}, map[string]any{"runAsUser": 0}, "kill", id)
	return err
}

// runPod runs the listener's program with arguments in a pod of its own, to its end, and
// returns its output. The namespace is one where a pod may see the node's processes and is
// under no NetworkPolicy.
func runPod(ts *testscript.TestScript, image string, spec, security map[string]any, args ...string) (string, error) {
	name := "scripts-" + strings.ToLower(rand.Text()[:8])
	spec["automountServiceAccountToken"] = false
	spec["containers"] = []any{map[string]any{"name": name, "image": image, "args": args, "securityContext": security}}
	overrides, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return "", err
	}
	const there = "--namespace=kube-system"
	defer ask(ts, there, "delete", "pod", name, "--ignore-not-found", "--wait=false")
	if _, err := ask(ts, there, "run", name, "--image="+image, "--restart=Never", "--overrides="+string(overrides)); err != nil {
		return "", err
	}
	if _, err := ask(ts, there, "wait", "pod", name, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"); err != nil {
		return "", err
	}
	return ask(ts, there, "logs", name)
}

func listenerImage(ts *testscript.TestScript) (string, error) {
	return ask(ts, "get", "deployment", "listener", "--output=jsonpath={.spec.template.spec.containers[0].image}")
}

// elsewhere sends a request from a pod: from another address than all other requests of a
// script, through the same ingress.
func elsewhere(ts *testscript.TestScript, c *caller, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: elsewhere METHOD PATH [BODY] [as TOKEN] [with HEADER]…")
	}
	image, err := listenerImage(ts)
	if err != nil {
		return err
	}
	inside := &caller{base: cmp.Or(os.Getenv("INSIDE_URL"), "http://kourier.kourier-system.svc.cluster.local"), host: c.host}
	r, err := inside.request(strings.ToUpper(args[0]), args[1:])
	if err != nil {
		return err
	}
	sent := map[string]any{"method": r.Method, "url": r.URL.String(), "host": r.Host, "header": r.Header}
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		sent["body"] = string(body)
	}
	request, err := json.Marshal(sent)
	if err != nil {
		return err
	}
	said, err := runPod(ts, image, map[string]any{}, map[string]any{}, "send", string(request))
	if err != nil {
		return err
	}
	var got struct {
		Status int
		Header http.Header
		Body   string
	}
	if err := json.Unmarshal([]byte(said), &got); err != nil {
		return fmt.Errorf("the pod printed %q: %w", said, err)
	}
	c.answer, c.body = &http.Response{StatusCode: got.Status, Header: got.Header}, got.Body
	return nil
}

// died waits until the kubelet says that a container was killed.
func died(ts *testscript.TestScript, function, container string) error {
	code := 0
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		all, err := podsOf(ts, function)
		if err != nil {
			return err
		}
		for _, p := range all {
			for _, c := range p.Status.ContainerStatuses {
				for _, ended := range []struct {
					ContainerID string
					ExitCode    int
				}{c.State.Terminated, c.LastState.Terminated} {
					if ended.ContainerID == container {
						code = ended.ExitCode
					}
				}
			}
		}
		if code == 137 {
			return nil
		}
	}
	return fmt.Errorf("%s of %s was not killed: its exit code is %d", container, function, code)
}

func asleep(ts *testscript.TestScript, _ *caller, functions []string) error {
	if len(functions) == 0 {
		return errors.New("usage: asleep FUNCTION…")
	}
	awake, err := ask(ts, "get", "pods", "--selector", "serving.knative.dev/service in ("+strings.Join(functions, ", ")+")",
		"--output=go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}")
	if err == nil && awake != "" {
		err = fmt.Errorf("awake are %s", awake)
	}
	return err
}

func logged(ts *testscript.TestScript, c *caller, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: logged FUNCTION TEXT…")
	}
	log, err := ask(ts, "logs", "--selector=serving.knative.dev/service="+args[0], "--container=user-container", "--tail=-1", since(c))
	if err != nil {
		return err
	}
	for line := range strings.Lines(log) {
		if !slices.ContainsFunc(args[1:], func(text string) bool { return !strings.Contains(line, text) }) {
			return nil
		}
	}
	return errors.New("it was not logged")
}

// since asks kubectl for what was logged since the script began.
func since(c *caller) string { return "--since-time=" + c.began.Format(time.RFC3339) }

func renew(ts *testscript.TestScript, _ *caller, functions []string) error {
	generations := map[string]string{}
	for _, f := range functions {
		patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"renewed":%q}}}}}`, rand.Text())
		generation, err := ask(ts, "patch", "services.serving.knative.dev/"+f, "--type=merge", "--patch="+patch, "--output=jsonpath={.metadata.generation}")
		if err != nil {
			return err
		}
		generations[f] = generation
	}
	for f, generation := range generations {
		for _, condition := range []string{"jsonpath={.status.observedGeneration}=" + generation, "condition=Ready"} {
			if _, err := ask(ts, "wait", "--for="+condition, "--timeout=120s", "services.serving.knative.dev/"+f); err != nil {
				return err
			}
		}
	}
	return nil
}

// A load is requests that are sent again and again, and what became of them.
type load struct {
	stop  chan struct{}
	ended bool
	all   sync.WaitGroup

	mu       sync.Mutex
	sent     int
	outcomes map[string]int // by status
	met      map[string]int // what they were at the last met
	done     []int          // the numbers of those that were done
	faults   []string
}

// pause is how long a caller waits before the next request.
const pause = 20 * time.Millisecond

func startLoad(_ *testscript.TestScript, c *caller, args []string) error {
	if len(args) < 3 {
		return errors.New("usage: load COUNT METHOD PATH …")
	}
	callers, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if c.load == nil || c.load.ended {
		c.load = &load{stop: make(chan struct{}), outcomes: map[string]int{}}
	}
	l := c.load
	for range callers {
		l.all.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				case <-time.After(pause):
					l.send(c, strings.ToUpper(args[1]), args[2:])
				}
			}
		})
	}
	return nil
}

func numbered(args []string, n int) (all []string) {
	for _, a := range args {
		all = append(all, strings.ReplaceAll(a, "%n", strconv.Itoa(n)))
	}
	return all
}

func (l *load) send(c *caller, method string, args []string) {
	l.mu.Lock()
	l.sent++
	n := l.sent
	l.mu.Unlock()
	first, second, _ := cutThen(numbered(args, n))
	r, err := c.request(method, first)
	var answer *http.Response
	var body string
	if err == nil {
		answer, body, err = do(r)
	}
	if err == nil && answer.StatusCode/100 == 2 && len(second) > 1 {
		answer, err = c.follow(second, body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.outcomes["lost"]++
		l.faults = append(l.faults, err.Error())
		return
	}
	l.outcomes[strconv.Itoa(answer.StatusCode)]++
	switch {
	case answer.StatusCode/100 == 2:
		l.done = append(l.done, n)
	case (answer.StatusCode == http.StatusServiceUnavailable || answer.StatusCode == http.StatusTooManyRequests) && answer.Header.Get("Retry-After") == "":
		l.faults = append(l.faults, answer.Status+" without Retry-After")
	}
}

// cutThen returns the words before and after "then".
func cutThen(args []string) (first, second []string, found bool) {
	if i := slices.Index(args, "then"); i >= 0 {
		return args[:i], args[i+1:], true
	}
	return args, nil, false
}

// follow sends a second request with the access token of the first answer.
func (c *caller) follow(args []string, body string) (*http.Response, error) {
	var grant struct{ Token string }
	if err := json.Unmarshal([]byte(body), &grant); err != nil {
		return nil, err
	}
	r, err := c.request(strings.ToUpper(args[0]), append(args[1:], "as", grant.Token))
	if err != nil {
		return nil, err
	}
	answer, _, err := do(r)
	return answer, err
}

// end ends the load, if there is one, once what was sent is answered.
func (l *load) end() {
	if l == nil || l.ended {
		return
	}
	l.ended = true
	close(l.stop)
	l.all.Wait()
}

func met(_ *testscript.TestScript, c *caller, args []string) error {
	least, more := "1", false
	if len(args) == 2 {
		least, more = strings.CutPrefix(args[1], "+")
	}
	count, err := strconv.Atoi(least)
	if c.load == nil || len(args) == 0 || len(args) > 2 || err != nil || count < 1 {
		return errors.New("usage: met STATUS [COUNT|+COUNT], after load")
	}
	c.load.mu.Lock()
	defer c.load.mu.Unlock()
	if more {
		count += c.load.met[args[0]]
	}
	if c.load.outcomes[args[0]] < count {
		return fmt.Errorf("the answers are %v", c.load.outcomes)
	}
	c.load.met = maps.Clone(c.load.outcomes)
	return nil
}

func loaded(ts *testscript.TestScript, c *caller, statuses []string) error {
	if c.load == nil || len(statuses) == 0 {
		return errors.New("usage: loaded STATUS…, after load")
	}
	c.load.end()
	ts.Logf("%d requests: %v", c.load.sent, c.load.outcomes)
	if c.load.outcomes[statuses[0]] == 0 {
		return fmt.Errorf("none of %d requests was answered %s: %v", c.load.sent, statuses[0], c.load.outcomes)
	}
	for _, status := range slices.Sorted(maps.Keys(c.load.outcomes)) {
		if !slices.Contains(statuses, status) {
			return fmt.Errorf("the answers were %v: %q", c.load.outcomes, c.load.faults[:min(3, len(c.load.faults))])
		}
	}
	for _, fault := range c.load.faults {
		if strings.Contains(fault, "Retry-After") {
			return errors.New(fault)
		}
	}
	return nil
}

func acknowledged(ts *testscript.TestScript, c *caller, args []string) error {
	if c.load == nil || len(args) < 2 {
		return errors.New("usage: acknowledged METHOD PATH …, after loaded")
	}
	for _, n := range c.load.done {
		if err := c.send(ts, strings.ToUpper(args[0]), numbered(args[1:], n)); err != nil {
			return err
		}
		if c.answer.StatusCode != http.StatusOK {
			return fmt.Errorf("number %d of %d was acknowledged, and now is answered %s", n, len(c.load.done), c.answer.Status)
		}
	}
	return nil
}

// broker is where the API server's proxy has the broker of the system's namespace.
const broker = "/api/v1/namespaces/knative-eventing/services/http:broker-ingress:80/proxy/ticketing/default"

// event sends an event by kubectl's proxy, and waits for the broker to take it. A broker
// on the in-memory channel answers when every subscriber has, also after its retries, so
// after a moment the wait goes on behind the script.
func event(ts *testscript.TestScript, _ *caller, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: event TYPE DATA [with HEADER]…")
	}
	proxy := exec.Command("kubectl", "proxy", "--port=0")
	proxy.Env = append(os.Environ(), "KUBECONFIG="+ts.Getenv("KUBECONFIG"))
	out, err := proxy.StdoutPipe()
	if err != nil {
		return err
	}
	if err := proxy.Start(); err != nil {
		return err
	}
	ts.Defer(func() {
		proxy.Process.Kill()
		proxy.Wait()
	})
	said, err := bufio.NewReader(out).ReadString('\n')
	_, address, ok := strings.Cut(strings.TrimSpace(said), "Starting to serve on ")
	if err != nil || !ok {
		return fmt.Errorf("kubectl proxy says %q: %v", said, err)
	}
	words := []string{broker, args[1], "with", "ce-specversion: 1.0", "with", "ce-id: " + rand.Text(), "with", "ce-source: /scripts", "with", "ce-type: " + args[0]}
	r, err := (&caller{base: "http://" + address}).request(http.MethodPost, append(words, args[2:]...))
	if err != nil {
		return err
	}
	taken := make(chan error, 1)
	go func() {
		answer, body, err := do(r)
		if err == nil && answer.StatusCode != http.StatusAccepted {
			err = fmt.Errorf("the broker answers %s: %s", answer.Status, body)
		}
		taken <- err
	}()
	select {
	case err := <-taken:
		return err
	case <-time.After(3 * time.Second):
		ts.Defer(func() { // or nobody would learn that it was never taken
			select {
			case err := <-taken:
				ts.Logf("an event of type %s was answered later: %v", args[0], err)
			default:
				ts.Logf("an event of type %s is not answered yet", args[0])
			}
		})
		return nil
	}
}

// told counts events: each once, though it may have come more often.
func told(ts *testscript.TestScript, c *caller, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: told COUNT TEXT…")
	}
	events, err := deliveries(ts, c, args[1:])
	if got := fmt.Sprint(len(events)); err == nil && got != args[0] {
		return fmt.Errorf("it was told %s", got)
	}
	return err
}

// heard counts deliveries: a broker may bring an event more often than it was sent.
func heard(ts *testscript.TestScript, c *caller, args []string) error {
	least := 0
	if len(args) > 1 {
		least, _ = strconv.Atoi(args[0])
	}
	if least == 0 {
		return errors.New("usage: heard COUNT TEXT…")
	}
	events, err := deliveries(ts, c, args[1:])
	got := 0
	for _, times := range events {
		got += times
	}
	if err == nil && got < least {
		return fmt.Errorf("it was heard %d times", got)
	}
	return err
}

// deliveries are the events with all these texts in them that have come to the listener
// since the script began, by source and id, and how often each did.
func deliveries(ts *testscript.TestScript, c *caller, texts []string) (map[string]int, error) {
	log, err := ask(ts, "logs", "deployment/listener", "--tail=-1", since(c))
	if err != nil {
		return nil, err
	}
	events := map[string]int{}
	for line := range strings.Lines(log) {
		if slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			continue
		}
		var event struct{ Source, ID string }
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			return nil, err
		}
		events[event.Source+" "+event.ID]++
	}
	return events, nil
}

// steps are those of a rotation: a new key is published, signs, and is the only one.
const steps = 3

// rotate takes the keys out of their Secrets and puts them back one step further.
func rotate(ts *testscript.TestScript, c *caller, _ []string) error {
	dir := ts.MkAbs("keys")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	secrets := map[string]string{"signing-keys": keyring.SigningFile, "verifying-keys": keyring.VerifyingFile}
	for secret, file := range secrets {
		encoded, err := secretValue(ts, secret, file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), encoded, 0o600); err != nil {
			return err
		}
		if c.rotations == 0 {
			ts.Defer(func() {
				if c.rotations < steps {
					ts.Logf("the rotation is undone: %v", putSecret(ts, secret, file, encoded))
				}
			})
		}
	}
	c.rotations++
	later := time.Now().UTC().Add(time.Duration(c.rotations) * 24 * time.Hour)
	step, err := keyring.Rotate(dir, keyring.Options{Now: later, Life: 15 * time.Minute})
	if err != nil {
		return err
	}
	ts.Logf("%v %v", step.Kind, step.Keys)
	for secret, file := range secrets {
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		if err := putSecret(ts, secret, file, content); err != nil {
			return err
		}
	}
	return nil
}

// putSecret puts a value into a Secret, by way of a file: arguments can be seen by others.
func putSecret(ts *testscript.TestScript, secret, name string, value []byte) error {
	patch, err := json.Marshal(map[string]any{"data": map[string][]byte{name: value}})
	if err != nil {
		return err
	}
	file := ts.MkAbs("patch.json")
	if err := os.WriteFile(file, patch, 0o600); err != nil {
		return err
	}
	_, err = ask(ts, "patch", "secret", secret, "--type=merge", "--patch-file="+file)
	return err
}

func secretValue(ts *testscript.TestScript, secret, name string) ([]byte, error) {
	out, err := ask(ts, "get", "secret", secret, "--output=json")
	if err != nil {
		return nil, err
	}
	var of struct{ Data map[string][]byte }
	err = json.Unmarshal([]byte(out), &of)
	return of.Data[name], err
}
