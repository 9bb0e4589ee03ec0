//go:build linux

// Package cold measures the latency of requests to functions that are scaled to zero. A
// measurement starts at the ingress, includes the start of a pod, and ends with the
// complete response. The same run measures hello, a bare net/http server in a copy of
// currentuser's Service. The ratio to hello shows the share of the function, because all
// other factors depend on the machine. The package can also measure variants of
// currentuser.
//
// The package is for infra/cluster. It leaves no permanent change in the cluster.
package cold

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"ticketing.com/auth/infra/cluster/build"
	"ticketing.com/auth/infra/cluster/image"
	"ticketing.com/auth/infra/cluster/install"
	"ticketing.com/auth/infra/cluster/node"
	"ticketing.com/auth/infra/knative"
)

// A call is a request that causes a cold start of a function.
type call struct {
	function, method, path, body, token string
	accessToken                         string // the access token in the last response, if any
	began                               time.Time
	listenDelays, latencies             []time.Duration // from the start of the request
	handlerTimes                        []time.Duration // the durations in the log of the function
	startTimes                          []time.Duration // the ages of the process when it listened, in the log
}

// orders returns the order of n calls in each round. Over all rounds, each call is at
// each position, and directly after each other call, equally often. This is needed
// because a pod that has just started is still busy when the next one starts. (It is a
// Williams design. For an odd number, the mirrored rounds follow.)
func orders(n int) (rounds [][]int) {
	for first := range n {
		var round []int
		for i := range n {
			step := (i + 1) / 2 // 0, 1, -1, 2, -2 …
			if i%2 == 0 {
				step = n - step
			}
			round = append(round, (first+step)%n)
		}
		rounds = append(rounds, round)
	}
	if n%2 == 1 {
		for _, round := range rounds[:n:n] {
			mirrored := slices.Clone(round)
			slices.Reverse(mirrored)
			rounds = append(rounds, mirrored)
		}
	}
	return rounds
}

// Measure scales all functions to zero, calls each of them, repeats this as many times
// as requested, and prints a table. It also measures currentuser with each of the
// changes, see parseChange.
func Measure(ctx context.Context, n node.Node, times int, changes []string, progress func(string), table io.Writer) (err error) {
	if times < 1 {
		return errors.New("-times must be at least 1")
	}
	credentials := fmt.Sprintf(`{"email":"cold-%d@example.com","password":"correct-horse-battery-staple"}`, time.Now().UnixNano())
	signup := &call{function: "signup", method: http.MethodPost, path: "/api/users/signup", body: credentials}
	hello := &call{function: "hello", method: http.MethodGet, path: "/cold/hello"}
	currentuser := &call{function: "currentuser", method: http.MethodGet, path: "/api/users/currentuser"}
	signin := &call{function: "signin", method: http.MethodPost, path: "/api/users/signin", body: credentials}
	calls := []*call{hello, {function: "jwks", method: http.MethodGet, path: "/.well-known/jwks.json"}, currentuser, signin}
	program, err := importProgram(ctx, n, image.Image{Name: "dev.local/hello"}, "./infra/test/bench/bare")
	if err != nil {
		return err
	}
	variants := map[*call]func(container map[string]any){hello: func(container map[string]any) { container["image"] = program }}
	for i, c := range changes {
		with := &call{function: fmt.Sprintf("changed-%d", i), method: http.MethodGet, path: fmt.Sprintf("/cold/changed-%d", i)}
		if variants[with], err = parseChange(ctx, n, c); err != nil {
			return err
		}
		calls = append(calls, with)
	}
	for c, change := range variants {
		remove, err := deployVariant(ctx, n, c.function, change)
		defer remove()
		if err != nil {
			return err
		}
	}
	if status, err := signup.send(ctx); err != nil || status != http.StatusCreated {
		return fmt.Errorf("signup returned status %d (%v)", status, err)
	}
	for c := range variants {
		c.token = signup.accessToken
		if err := c.ready(ctx); err != nil {
			return err
		}
	}
	defer func() { // after an error too, print the completed measurements
		for i, c := range changes {
			calls[len(calls)-len(changes)+i].function = "currentuser, " + c
		}
		if !slices.ContainsFunc(calls, func(c *call) bool { return len(c.latencies) == 0 }) {
			err = errors.Join(err, print(table, calls))
		}
	}()
	token := signup.accessToken
	for round := range times {
		if err := waitScaledToZero(ctx, n, calls); err != nil {
			return err
		}
		for _, i := range orders(len(calls))[round%len(orders(len(calls)))] {
			c := calls[i]
			c.token = ""
			if _, with := variants[c]; c == currentuser || with && c != hello {
				c.token = token
			}
			// The kubelet checks the containers once a second. A response comes right
			// after such a check. Without a random wait, all calls would start at the
			// same phase of it.
			time.Sleep(rand.N(time.Second))
			c.began = time.Now()
			status, err := c.send(ctx)
			if err != nil || status != http.StatusOK {
				return fmt.Errorf("%s returned status %d (%v)", c.function, status, err)
			}
			c.latencies = append(c.latencies, time.Since(c.began))
		}
		for _, c := range calls {
			if err := c.readLog(ctx, n); err != nil {
				return err
			}
		}
		token = signin.accessToken // the measurement takes longer than the lifetime of a token
		progress(fmt.Sprintf("Round %d of %d.", round+1, times))
	}
	return nil
}

// importProgram builds a program of the project and imports its image into the node.
func importProgram(ctx context.Context, n node.Node, i image.Image, program string) (reference string, err error) {
	folder, err := build.Workspace(ctx, program)
	if err != nil {
		return "", err
	}
	i.Program = filepath.Join(folder, filepath.Base(program))
	if i, err = i.Tagged(); err != nil {
		return "", err
	}
	return i.Ref(), install.Import(ctx, n, map[string]image.Image{i.Name: i})
}

// parseChange parses a change of currentuser: another setting (NAME=VALUE), another CPU
// request (cpu=500m), an image with a number of layers (layers=12), or another program of the project
// (program=./infra/test/bench/consumer).
func parseChange(ctx context.Context, n node.Node, argument string) (func(container map[string]any), error) {
	name, value, ok := strings.Cut(argument, "=")
	switch {
	case !ok || name == "":
		return nil, errors.New("-with must have the form NAME=VALUE")
	case name == "cpu":
		return func(container map[string]any) {
			resources, _ := container["resources"].(map[string]any)
			requests, ok := resources["requests"].(map[string]any)
			if !ok {
				container["resources"] = map[string]any{"requests": map[string]any{name: value}}
				return
			}
			requests[name] = value
		}, nil
	case name == "program":
		reference, err := importProgram(ctx, n, image.Image{Name: "dev.local/" + filepath.Base(value)}, value)
		return func(container map[string]any) { container["image"] = reference }, err
	case name == "layers":
		layers, err := strconv.Atoi(value)
		if err != nil || layers < 1 || layers > 100 {
			return nil, errors.New("-with layers must be between 1 and 100")
		}
		reference, err := importProgram(ctx, n, image.Image{Name: "dev.local/layers-" + value, BaseLayers: layers - 1}, "./functions/currentuser/cmd/currentuser")
		return func(container map[string]any) { container["image"] = reference }, err
	}
	return func(container map[string]any) {
		settings, _ := container["env"].([]any)
		container["env"] = append(settings, map[string]any{"name": name, "value": value})
	}, nil
}

// deployVariant deploys a copy of currentuser's Service with a changed container, and a
// route to it. The caller must call remove, also after an error.
func deployVariant(ctx context.Context, n node.Node, name string, change func(container map[string]any)) (remove func(), err error) {
	remove = func() {}
	deployed, err := n.Kubectl(ctx, nil, "--namespace", knative.Namespace, "get", "services.serving.knative.dev", "currentuser", "--output=json")
	if err != nil {
		return remove, err
	}
	var service struct {
		Spec struct {
			Template struct {
				Metadata map[string]any `json:"metadata"`
				Spec     map[string]any `json:"spec"`
			} `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal([]byte(deployed), &service); err != nil {
		return remove, err
	}
	containers, _ := service.Spec.Template.Spec["containers"].([]any)
	if len(containers) != 1 {
		return remove, errors.New("currentuser must have exactly one container")
	}
	change(containers[0].(map[string]any))
	template, err := json.Marshal(service.Spec.Template)
	if err != nil {
		return remove, err
	}
	var manifest bytes.Buffer
	if err := variantTemplate.Execute(&manifest, map[string]string{"Name": name, "Template": string(template)}); err != nil {
		return remove, err
	}
	text := manifest.String()
	remove = func() {
		n.Kubectl(context.WithoutCancel(ctx), strings.NewReader(text), "delete", "--ignore-not-found", "--wait=false", "-f", "-")
	}
	if _, err := n.Kubectl(ctx, &manifest, "apply", "-f", "-"); err != nil {
		return remove, err
	}
	_, err = n.Kubectl(ctx, nil, "--namespace", knative.Namespace, "wait", "--for=condition=Ready", "--timeout=120s", "services.serving.knative.dev/"+name)
	return remove, err
}

//go:embed variant.yaml
var variantYAML string

var variantTemplate = template.Must(template.New("variant").Parse(variantYAML))

// client has a timeout that is long enough for a slow start of a pod.
var client = &http.Client{Timeout: time.Minute}

// waitScaledToZero waits until no measured function has a pod. A terminating pod counts.
func waitScaledToZero(ctx context.Context, n node.Node, calls []*call) error {
	var names []string
	for _, c := range calls {
		names = append(names, c.function)
	}
	for ctx.Err() == nil {
		pods, err := n.Kubectl(ctx, nil, "--namespace", knative.Namespace, "get", "pods", "--output=name",
			"--selector=serving.knative.dev/service in ("+strings.Join(names, ", ")+")")
		if err != nil {
			return err
		}
		if pods == "" {
			return nil
		}
		time.Sleep(300 * time.Millisecond)
	}
	return context.Cause(ctx)
}

// ready waits for the route, which works only a moment after its status reports that it
// is ready.
func (c *call) ready(ctx context.Context) error {
	status := 0
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
		var err error
		if status, err = c.send(ctx); err == nil && status == http.StatusOK {
			return nil
		}
	}
	return fmt.Errorf("%s returned status %d", c.path, status)
}

// readLog reads two durations from the log of the pod. The first lasts until the
// function listened, by the node's timestamp of that line. The second is the duration of
// the request. A pod that no longer exists is skipped.
func (c *call) readLog(ctx context.Context, n node.Node) error {
	logs, err := n.Kubectl(ctx, nil, "--namespace", knative.Namespace, "logs", "--timestamps", "--tail=-1", "--container=user-container",
		"--ignore-errors", "--selector=serving.knative.dev/service="+c.function)
	if err != nil {
		return err
	}
	listening := false
	for line := range strings.Lines(logs) {
		stamp, text, _ := strings.Cut(line, " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		var entry struct {
			Msg string
			Ms  float64
			Age *int64 // ms
		}
		if err != nil || json.Unmarshal([]byte(text), &entry) != nil || at.Before(c.began) {
			continue
		}
		switch {
		case entry.Msg == "listening" && !listening:
			listening = true
			c.listenDelays = append(c.listenDelays, at.Sub(c.began))
			if entry.Age != nil {
				c.startTimes = append(c.startTimes, time.Duration(*entry.Age)*time.Millisecond)
			}
		case entry.Msg == "request":
			c.handlerTimes = append(c.handlerTimes, time.Duration(entry.Ms*float64(time.Millisecond)))
			return nil
		}
	}
	return nil
}

func (c *call) request(ctx context.Context) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, c.method, install.BaseURL+c.path, strings.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	return r, nil
}

func (c *call) send(ctx context.Context) (status int, err error) {
	r, err := c.request(ctx)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	var grant struct{ Token string }
	json.Unmarshal(body, &grant) // most responses have no token
	c.accessToken = grant.Token
	return response.StatusCode, err
}

// print prints a table with quartiles and mean of the latency, and its ratio to that of
// hello. It adds three means from the logs: the delay until the function listens, the part of it from
// the start of the process, which only the programs of infra/test/bench log, and the duration of the
// request. The first call must be hello.
func print(table io.Writer, calls []*call) error {
	out := tabwriter.NewWriter(table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "function\trequests\tmin\tp25\tmedian\tp75\tmax\tlistens after\tof which start\tlogged duration\tmean\tratio to hello\t")
	floor, _ := mean(calls[0].latencies)
	for _, c := range calls {
		fmt.Fprintf(out, "%s\t%d\t", c.function, len(c.latencies))
		for _, q := range []float64{0, 0.25, 0.5, 0.75, 1} {
			fmt.Fprintf(out, "%.2f s\t", quantile(c.latencies, q).Seconds())
		}
		listens, _ := mean(c.listenDelays)
		latency, stderr := mean(c.latencies)
		fmt.Fprintf(out, "%.2f s\t%s\t%s\t%.2f ± %.2f s\t%.2f×\t\n", listens, milliseconds(c.startTimes), milliseconds(c.handlerTimes), latency, stderr, latency/floor)
	}
	return out.Flush()
}

// milliseconds returns the mean and its standard error, or an empty text.
func milliseconds(of []time.Duration) string {
	if len(of) == 0 {
		return ""
	}
	m, stderr := mean(of)
	return fmt.Sprintf("%.1f ± %.1f ms", m*1000, stderr*1000)
}

// mean returns the mean and its standard error, in seconds.
func mean(of []time.Duration) (m, stderr float64) {
	for _, d := range of {
		m += d.Seconds() / float64(len(of))
	}
	for _, d := range of {
		stderr += (d.Seconds() - m) * (d.Seconds() - m)
	}
	return m, math.Sqrt(stderr / float64(max(1, len(of)-1)) / float64(len(of)))
}

func quantile(of []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}
