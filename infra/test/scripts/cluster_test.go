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

// The commands for a cluster use kubectl, so they run on any cluster.

func kubectl(ts *testscript.TestScript, _ *client, args []string) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		err := ts.Exec("kubectl", append([]string{"--namespace", "ticketing"}, args...)...)
		if err == nil || !webhookUnavailable(ts.ReadFile("stderr")) || time.Now().After(end) {
			return err
		}
	}
}

// webhookUnavailable reports whether a request failed because no pod of a webhook responded.
// That happens for a moment after one of its pods was replaced.
func webhookUnavailable(stderr string) bool {
	return strings.Contains(stderr, "failed calling webhook")
}

// kubectlOutput runs kubectl and returns its output, which the log of the script does not get.
func kubectlOutput(ts *testscript.TestScript, args ...string) (string, error) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		cmd := exec.Command("kubectl", append([]string{"--namespace=ticketing"}, args...)...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+ts.Getenv("KUBECONFIG"))
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err == nil {
			return string(out), nil
		}
		if !webhookUnavailable(stderr.String()) || time.Now().After(end) {
			return "", fmt.Errorf("kubectl %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
		}
	}
}

// countPods returns a command that checks the number of a function's pods, without excluded
// ones.
func countPods(verb string, excluded func(pod) bool) func(*testscript.TestScript, *client, []string) error {
	return func(ts *testscript.TestScript, _ *client, args []string) error {
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
		if got := len(slices.DeleteFunc(all, excluded)); got != want && !(more && got > want) {
			err = fmt.Errorf("%s: got %d pods, want %s", args[0], got, args[1])
		}
		return err
	}
}

// A pod is the part of a pod's manifest that the tests need.
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
	out, err := kubectlOutput(ts, "get", "pods", "--output=json", "--selector=serving.knative.dev/service="+function)
	if err != nil {
		return nil, err
	}
	var all struct{ Items []pod }
	err = json.Unmarshal([]byte(out), &all)
	return all.Items, err
}

// isUnavailable reports whether no request reaches a pod: it is not ready or is terminating.
func (p pod) isUnavailable() bool {
	ready := slices.ContainsFunc(p.Status.Conditions, func(c struct{ Type, Status string }) bool {
		return c.Type == "Ready" && c.Status == "True"
	})
	return !ready || p.Metadata.DeletionTimestamp != ""
}

// sigkill sends SIGKILL from the node, by a pod that sees the processes of the node. Deleting a
// pod is no substitute: the kubelet sends SIGTERM first, even without a grace period. The
// kubelet reports the kill as exit code 137.
func sigkill(ts *testscript.TestScript, _ *client, args []string) error {
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
	for _, p := range slices.DeleteFunc(all, pod.isUnavailable) {
		for _, c := range p.Status.ContainerStatuses {
			if c.Name != "user-container" {
				continue
			}
			if err := killContainer(ts, image, p.Spec.NodeName, c.ContainerID); err != nil {
				return err
			}
			if err := waitUntilKilled(ts, args[0], c.ContainerID); err != nil {
				return err
			}
			killed++
		}
	}
	if killed == 0 {
		return fmt.Errorf("%s has no ready pod", args[0])
	}
	return nil
}

func killContainer(ts *testscript.TestScript, image, node, container string) error {
	_, id, _ := strings.Cut(container, "://")
	_, err := runPod(ts, image, map[string]any{"nodeName": node, "hostPID": true}, map[string]any{"runAsUser": 0}, "kill", id)
	return err
}

// runPod runs the program of the listener with arguments in a pod of its own and returns its
// output. In the namespace kube-system a pod may see the processes of the node, and no
// NetworkPolicy applies.
func runPod(ts *testscript.TestScript, image string, spec, security map[string]any, args ...string) (string, error) {
	name := "scripts-" + strings.ToLower(rand.Text()[:8])
	spec["automountServiceAccountToken"] = false
	spec["containers"] = []any{map[string]any{"name": name, "image": image, "args": args, "securityContext": security}}
	overrides, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return "", err
	}
	const namespace = "--namespace=kube-system"
	defer kubectlOutput(ts, namespace, "delete", "pod", name, "--ignore-not-found", "--wait=false")
	if _, err := kubectlOutput(ts, namespace, "run", name, "--image="+image, "--restart=Never", "--overrides="+string(overrides)); err != nil {
		return "", err
	}
	if _, err := kubectlOutput(ts, namespace, "wait", "pod", name, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s"); err != nil {
		return "", err
	}
	return kubectlOutput(ts, namespace, "logs", name)
}

func listenerImage(ts *testscript.TestScript) (string, error) {
	return kubectlOutput(ts, "get", "deployment", "listener", "--output=jsonpath={.spec.template.spec.containers[0].image}")
}

// fromPod sends a request from a pod, through the same ingress. Its address differs from that
// of all other requests of a script.
func fromPod(ts *testscript.TestScript, c *client, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: from-pod METHOD PATH [BODY] [as TOKEN] [with HEADER]…")
	}
	image, err := listenerImage(ts)
	if err != nil {
		return err
	}
	inside := &client{base: cmp.Or(os.Getenv("INSIDE_URL"), "http://kourier.kourier-system.svc.cluster.local"), host: c.host}
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
	output, err := runPod(ts, image, map[string]any{}, map[string]any{}, "send", string(request))
	if err != nil {
		return err
	}
	var got struct {
		Status int
		Header http.Header
		Body   string
	}
	if err := json.Unmarshal([]byte(output), &got); err != nil {
		return fmt.Errorf("got the output %q of the pod: %w", output, err)
	}
	c.response, c.body = &http.Response{StatusCode: got.Status, Header: got.Header}, got.Body
	return nil
}

// waitUntilKilled waits until the kubelet reports that a container was killed.
func waitUntilKilled(ts *testscript.TestScript, function, container string) error {
	code := 0
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		all, err := podsOf(ts, function)
		if err != nil {
			return err
		}
		for _, p := range all {
			for _, c := range p.Status.ContainerStatuses {
				for _, terminated := range []struct {
					ContainerID string
					ExitCode    int
				}{c.State.Terminated, c.LastState.Terminated} {
					if terminated.ContainerID == container {
						code = terminated.ExitCode
					}
				}
			}
		}
		if code == 137 {
			return nil
		}
	}
	return fmt.Errorf("container %s of %s: got exit code %d, want 137", container, function, code)
}

func scaledToZero(ts *testscript.TestScript, _ *client, functions []string) error {
	if len(functions) == 0 {
		return errors.New("usage: scaled-to-zero FUNCTION…")
	}
	running, err := kubectlOutput(ts, "get", "pods", "--selector", "serving.knative.dev/service in ("+strings.Join(functions, ", ")+")",
		"--output=go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}")
	if err == nil && running != "" {
		err = fmt.Errorf("got the pods %s, want none", running)
	}
	return err
}

func logged(ts *testscript.TestScript, c *client, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: logged FUNCTION TEXT…")
	}
	log, err := kubectlOutput(ts, "logs", "--selector=serving.knative.dev/service="+args[0], "--container=user-container", "--tail=-1", since(c))
	if err != nil {
		return err
	}
	for line := range strings.Lines(log) {
		if !slices.ContainsFunc(args[1:], func(text string) bool { return !strings.Contains(line, text) }) {
			return nil
		}
	}
	return fmt.Errorf("no log line of %s has all of %q", args[0], args[1:])
}

// since returns the option that makes kubectl return the log since the script began.
func since(c *client) string { return "--since-time=" + c.began.Format(time.RFC3339) }

func redeploy(ts *testscript.TestScript, _ *client, functions []string) error {
	generations := map[string]string{}
	for _, f := range functions {
		patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"redeploy":%q}}}}}`, rand.Text())
		generation, err := kubectlOutput(ts, "patch", "services.serving.knative.dev/"+f, "--type=merge", "--patch="+patch, "--output=jsonpath={.metadata.generation}")
		if err != nil {
			return err
		}
		generations[f] = generation
	}
	for f, generation := range generations {
		for _, condition := range []string{"jsonpath={.status.observedGeneration}=" + generation, "condition=Ready"} {
			if _, err := kubectlOutput(ts, "wait", "--for="+condition, "--timeout=120s", "services.serving.knative.dev/"+f); err != nil {
				return err
			}
		}
	}
	return nil
}

// A load is a set of clients that repeat requests, with the results.
type load struct {
	stop    chan struct{}
	ended   bool
	clients sync.WaitGroup

	mu        sync.Mutex
	sent      int
	outcomes  map[string]int // by status
	seen      map[string]int // outcomes at the last check by responses
	succeeded []int          // the numbers of the requests with a 2xx response
	problems  []string
}

// pause is the time that a client of a load waits before the next request. With a shorter one the
// load takes the CPU that new pods need to start.
const pause = 100 * time.Millisecond

func startLoad(_ *testscript.TestScript, c *client, args []string) error {
	if len(args) < 3 {
		return errors.New("usage: load COUNT METHOD PATH …")
	}
	clients, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if c.load == nil || c.load.ended {
		c.load = &load{stop: make(chan struct{}), outcomes: map[string]int{}}
	}
	l := c.load
	for range clients {
		l.clients.Go(func() {
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

func (l *load) send(c *client, method string, args []string) {
	l.mu.Lock()
	l.sent++
	n := l.sent
	l.mu.Unlock()
	first, second, _ := splitThen(numbered(args, n))
	r, err := c.request(method, first)
	var response *http.Response
	var body string
	if err == nil {
		response, body, err = do(r)
	}
	if err == nil && response.StatusCode/100 == 2 && len(second) > 1 {
		response, err = c.follow(second, body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.outcomes["lost"]++
		l.problems = append(l.problems, err.Error())
		return
	}
	l.outcomes[strconv.Itoa(response.StatusCode)]++
	switch {
	case response.StatusCode/100 == 2:
		l.succeeded = append(l.succeeded, n)
	case (response.StatusCode == http.StatusServiceUnavailable || response.StatusCode == http.StatusTooManyRequests) && response.Header.Get("Retry-After") == "":
		l.problems = append(l.problems, response.Status+" without Retry-After")
	case response.StatusCode >= http.StatusInternalServerError:
		l.problems = append(l.problems, response.Status+": "+body)
	}
}

// splitThen returns the words before and after "then".
func splitThen(args []string) (first, second []string, found bool) {
	if i := slices.Index(args, "then"); i >= 0 {
		return args[:i], args[i+1:], true
	}
	return args, nil, false
}

// follow sends a second request with the access token of the first response.
func (c *client) follow(args []string, body string) (*http.Response, error) {
	var grant struct{ Token string }
	if err := json.Unmarshal([]byte(body), &grant); err != nil {
		return nil, err
	}
	r, err := c.request(strings.ToUpper(args[0]), append(args[1:], "as", grant.Token))
	if err != nil {
		return nil, err
	}
	response, _, err := do(r)
	return response, err
}

// end stops the load, if there is one, and waits for the requests in flight.
func (l *load) end() {
	if l == nil || l.ended {
		return
	}
	l.ended = true
	close(l.stop)
	l.clients.Wait()
}

func responses(_ *testscript.TestScript, c *client, args []string) error {
	least, more := "1", false
	if len(args) == 2 {
		least, more = strings.CutPrefix(args[1], "+")
	}
	count, err := strconv.Atoi(least)
	if c.load == nil || len(args) == 0 || len(args) > 2 || err != nil || count < 1 {
		return errors.New("usage: responses STATUS [COUNT|+COUNT], after load")
	}
	c.load.mu.Lock()
	defer c.load.mu.Unlock()
	if more {
		count += c.load.seen[args[0]]
	}
	if c.load.outcomes[args[0]] < count {
		return fmt.Errorf("got the responses %v, want %d of %s", c.load.outcomes, count, args[0])
	}
	c.load.seen = maps.Clone(c.load.outcomes)
	return nil
}

func endLoad(ts *testscript.TestScript, c *client, statuses []string) error {
	if c.load == nil || len(statuses) == 0 {
		return errors.New("usage: end-load STATUS…, after load")
	}
	c.load.end()
	for outcome, n := range c.load.outcomes {
		if outcome != "lost" {
			c.responses += n
		}
	}
	ts.Logf("%d requests: %v", c.load.sent, c.load.outcomes)
	if c.load.outcomes[statuses[0]] == 0 {
		return fmt.Errorf("%d requests: got the responses %v, want at least one %s", c.load.sent, c.load.outcomes, statuses[0])
	}
	for _, status := range slices.Sorted(maps.Keys(c.load.outcomes)) {
		if !slices.Contains(statuses, status) {
			return fmt.Errorf("got the responses %v, want only %v: %q", c.load.outcomes, statuses, c.load.problems[:min(3, len(c.load.problems))])
		}
	}
	for _, problem := range c.load.problems {
		if strings.HasSuffix(problem, "without Retry-After") {
			return errors.New(problem)
		}
	}
	return nil
}

func checkAcknowledged(ts *testscript.TestScript, c *client, args []string) error {
	if c.load == nil || len(args) < 2 {
		return errors.New("usage: check-acknowledged METHOD PATH …, after end-load")
	}
	for _, n := range c.load.succeeded {
		if err := c.send(ts, strings.ToUpper(args[0]), numbered(args[1:], n)); err != nil {
			return err
		}
		if c.response.StatusCode != http.StatusOK {
			return fmt.Errorf("request %d of %d was acknowledged; the check got %s, want 200", n, len(c.load.succeeded), c.response.Status)
		}
	}
	return nil
}

// broker is the path of the broker for the system's namespace in the proxy of the API server.
const broker = "/api/v1/namespaces/knative-eventing/services/http:broker-ingress:80/proxy/ticketing/default"

// sendEvent sends an event through kubectl proxy and waits until the broker accepts it. A broker
// on the in-memory channel responds only after every subscriber has responded, retries
// included. So after three seconds the script continues, and the wait continues in the
// background.
func sendEvent(ts *testscript.TestScript, _ *client, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: send-event TYPE DATA [with HEADER]…")
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
	output, err := bufio.NewReader(out).ReadString('\n')
	_, address, ok := strings.Cut(strings.TrimSpace(output), "Starting to serve on ")
	if err != nil || !ok {
		return fmt.Errorf("kubectl proxy: got the first line %q (%v), want the address", output, err)
	}
	words := []string{broker, args[1], "with", "ce-specversion: 1.0", "with", "ce-id: " + rand.Text(), "with", "ce-source: /scripts", "with", "ce-type: " + args[0]}
	r, err := (&client{base: "http://" + address}).request(http.MethodPost, append(words, args[2:]...))
	if err != nil {
		return err
	}
	accepted := make(chan error, 1)
	go func() {
		response, body, err := do(r)
		if err == nil && response.StatusCode != http.StatusAccepted {
			err = fmt.Errorf("broker: got %s, want 202: %s", response.Status, body)
		}
		accepted <- err
	}()
	select {
	case err := <-accepted:
		return err
	case <-time.After(3 * time.Second):
		ts.Defer(func() { // reports an event that the broker never accepts
			select {
			case err := <-accepted:
				ts.Logf("the broker responded to an event of type %s later: %v", args[0], err)
			default:
				ts.Logf("the broker has not responded to an event of type %s", args[0])
			}
		})
		return nil
	}
}

// published checks the number of events. It counts repeated deliveries of an event once.
func published(ts *testscript.TestScript, c *client, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: published COUNT TEXT…")
	}
	events, err := deliveredEvents(ts, c, args[1:])
	if got := fmt.Sprint(len(events)); err == nil && got != args[0] {
		return fmt.Errorf("got %s events, want %s", got, args[0])
	}
	return err
}

// deliveries checks the number of deliveries. A broker may deliver an event more than once.
func deliveries(ts *testscript.TestScript, c *client, args []string) error {
	least := 0
	if len(args) > 1 {
		least, _ = strconv.Atoi(args[0])
	}
	if least == 0 {
		return errors.New("usage: deliveries COUNT TEXT…")
	}
	events, err := deliveredEvents(ts, c, args[1:])
	got := 0
	for _, times := range events {
		got += times
	}
	if err == nil && got < least {
		return fmt.Errorf("got %d deliveries, want at least %d", got, least)
	}
	return err
}

// exported checks that no span and no metric value of the loads was lost.
func exported(ts *testscript.TestScript, c *client, names []string) error {
	if len(names) == 0 || c.responses == 0 {
		return errors.New("usage: exported NAME…, after end-load")
	}
	log, err := kubectlOutput(ts, "logs", "deployment/collector", "--tail=-1", since(c))
	if err != nil {
		return err
	}
	counts := map[string]int{}
	for line := range strings.Lines(log) {
		var received struct{ Exported map[string]int }
		if err := json.Unmarshal([]byte(line), &received); err != nil {
			return err
		}
		for name, n := range received.Exported {
			counts[name] += n
		}
	}
	for _, name := range names {
		if counts[name] != c.responses {
			return fmt.Errorf("got %d of %s for %d responses", counts[name], name, c.responses)
		}
	}
	ts.Logf("the collector has %d of each of %q", c.responses, names)
	return nil
}

// deliveredEvents returns the events with all these texts that the listener has received since
// the script began. The keys are source and id, the values are the numbers of deliveries.
func deliveredEvents(ts *testscript.TestScript, c *client, texts []string) (map[string]int, error) {
	log, err := kubectlOutput(ts, "logs", "deployment/listener", "--tail=-1", since(c))
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

// rotationSteps is the number of steps of a key rotation: publish the new key, sign with it,
// withdraw the old key.
const rotationSteps = 3

// rotate reads the keys from their Secrets, runs the next step and writes them back.
func rotate(ts *testscript.TestScript, c *client, _ []string) error {
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
				if c.rotations < rotationSteps {
					ts.Logf("undo the rotation: %v", putSecret(ts, secret, file, encoded))
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

// putSecret writes a value into a Secret. It passes the value in a file, because other users
// can see the arguments of a process.
func putSecret(ts *testscript.TestScript, secret, name string, value []byte) error {
	patch, err := json.Marshal(map[string]any{"data": map[string][]byte{name: value}})
	if err != nil {
		return err
	}
	file := ts.MkAbs("patch.json")
	if err := os.WriteFile(file, patch, 0o600); err != nil {
		return err
	}
	_, err = kubectlOutput(ts, "patch", "secret", secret, "--type=merge", "--patch-file="+file)
	return err
}

func secretValue(ts *testscript.TestScript, secret, name string) ([]byte, error) {
	out, err := kubectlOutput(ts, "get", "secret", secret, "--output=json")
	if err != nil {
		return nil, err
	}
	var of struct{ Data map[string][]byte }
	err = json.Unmarshal([]byte(out), &of)
	return of.Data[name], err
}

// signOuts logs the times from sign-outs to the refusals of a service, and fails if a refusal takes
// more than a minute. The times depend on the machine, so they have no smaller bound here.
func signOuts(ts *testscript.TestScript, c *client, args []string) error {
	if len(args) < 3 {
		return errors.New("usage: sign-outs COUNT METHOD PATH …")
	}
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	const workers = 5 // they are at different times of the service's poll interval
	times, errs := make([]time.Duration, count), make([]error, count)
	var group sync.WaitGroup
	next := make(chan int, count)
	for i := range count {
		next <- i
	}
	close(next)
	for range workers {
		group.Go(func() {
			for i := range next {
				times[i], errs[i] = c.signOut(ts.Getenv("PASSWORD"), args[1:])
			}
		})
	}
	group.Wait()
	slices.Sort(times)
	ts.Logf("refused after a sign-out: p50 %v, p99 %v", times[(count-1)/2].Round(time.Millisecond), times[(count-1)*99/100].Round(time.Millisecond))
	return errors.Join(errs...)
}

// signOut returns the time from a sign-out to the refusal of a request with the token.
func (c *client) signOut(password string, args []string) (time.Duration, error) {
	send := func(method string, args ...string) (int, string, error) {
		r, err := c.request(strings.ToUpper(method), args)
		if err != nil {
			return 0, "", err
		}
		response, body, err := do(r)
		if err != nil {
			return 0, "", err
		}
		return response.StatusCode, body, nil
	}
	until := func(want func(int) bool, method string, args ...string) (body string, err error) {
		var status int
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if status, body, err = send(method, args...); err == nil && want(status) {
				return body, nil
			}
		}
		return "", fmt.Errorf("%s %s: got status %d, %v, for a minute", method, args[0], status, err)
	}
	created := func(status int) bool { return status == http.StatusCreated }
	body, err := until(created, "post", "/api/users/signup", fmt.Sprintf(`{"email":"%s@example.com","password":%q}`, strings.ToLower(rand.Text()), password))
	if err != nil {
		return 0, err
	}
	var grant struct{ Token string }
	if err := json.Unmarshal([]byte(body), &grant); err != nil {
		return 0, err
	}
	method, request := args[0], append(slices.Clone(args[1:]), "as", grant.Token)
	refused := func(status int) bool { return status == http.StatusUnauthorized }
	accepted := func(status int) bool { return status < http.StatusInternalServerError && !refused(status) }
	if _, err := until(accepted, method, request...); err != nil {
		return 0, err
	}
	ended := func(status int) bool { return status == http.StatusOK }
	if _, err := until(ended, "post", "/api/users/signout", "as", grant.Token); err != nil {
		return 0, err
	}
	began := time.Now()
	_, err = until(refused, method, request...)
	return time.Since(began), err
}
