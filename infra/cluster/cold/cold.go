//go:build linux

// Package cold measures what a call costs that finds its function asleep: through the
// ingress, with the pod that it starts, to the whole answer. Beside the functions it
// measures hello, a bare net/http in a Service that is currentuser's in all else, in the
// same run, since everything else about the figures is the machine's. And it tries what
// might help: currentuser once more, changed.
//
// It is for infra/cluster, and changes nothing in the cluster for good.
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

// A call is one that wakes a function.
type call struct {
	function, method, path, body, token string
	granted                             string // the access token in the answer, if there was one
	began                               time.Time
	listened, took                      []time.Duration // from when it was called
	own                                 []time.Duration // what its own log says that the answer took
}

// orders are those of n calls, round by round: in so many rounds each is in each place, and
// after each other, equally often, for a pod that has just been started is still busy when
// the next one starts. (A Williams design, which for an odd number is followed by its
// mirror image.)
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

// Measure puts all functions to sleep and calls each, as many times as are asked for,
// and prints a table. It measures currentuser with each of the changes too: see change.
func Measure(ctx context.Context, n node.Node, times int, changes []string, say func(string), table io.Writer) (err error) {
	if times < 1 {
		return errors.New("-times: at least once")
	}
	credentials := fmt.Sprintf(`{"email":"cold-%d@example.com","password":"correct-horse-battery-staple"}`, time.Now().UnixNano())
	signup := &call{function: "signup", method: http.MethodPost, path: "/api/users/signup", body: credentials}
	hello := &call{function: "hello", method: http.MethodGet, path: "/cold/hello"}
	currentuser := &call{function: "currentuser", method: http.MethodGet, path: "/api/users/currentuser"}
	signin := &call{function: "signin", method: http.MethodPost, path: "/api/users/signin", body: credentials}
	calls := []*call{hello, {function: "jwks", method: http.MethodGet, path: "/.well-known/jwks.json"}, currentuser, signin}
	program, err := give(ctx, n, image.Image{Name: "dev.local/hello"}, "./infra/test/bench/bare")
	if err != nil {
		return err
	}
	added := map[*call]func(container map[string]any){hello: func(container map[string]any) { container["image"] = program }}
	for i, c := range changes {
		with := &call{function: fmt.Sprintf("changed-%d", i), method: http.MethodGet, path: fmt.Sprintf("/cold/changed-%d", i)}
		if added[with], err = change(ctx, n, c); err != nil {
			return err
		}
		calls = append(calls, with)
	}
	for c, change := range added {
		remove, err := beside(ctx, n, c.function, change)
		defer remove()
		if err != nil {
			return err
		}
	}
	if status, err := signup.send(ctx); err != nil || status != http.StatusCreated {
		return fmt.Errorf("signup answers %d (%v)", status, err)
	}
	for c := range added {
		if err := c.ready(ctx); err != nil {
			return err
		}
	}
	defer func() { // what was measured until then counts, also after an error
		for i, c := range changes {
			calls[len(calls)-len(changes)+i].function = "currentuser, " + c
		}
		if !slices.ContainsFunc(calls, func(c *call) bool { return len(c.took) == 0 }) {
			err = errors.Join(err, print(table, calls))
		}
	}()
	token := signup.granted
	for round := range times {
		if err := asleep(ctx, n, calls); err != nil {
			return err
		}
		for _, i := range orders(len(calls))[round%len(orders(len(calls)))] {
			c := calls[i]
			c.token = ""
			if _, with := added[c]; c == currentuser || with && c != hello {
				c.token = token
			}
			// a kubelet looks once a second at what runs, and what has just answered was seen
			// by then: without this, all calls would come at the same moment of its second
			time.Sleep(rand.N(time.Second))
			c.began = time.Now()
			status, err := c.send(ctx)
			if err != nil || status != http.StatusOK {
				return fmt.Errorf("%s answers %d (%v)", c.function, status, err)
			}
			c.took = append(c.took, time.Since(c.began))
		}
		for _, c := range calls {
			if err := c.reads(ctx, n); err != nil {
				return err
			}
		}
		token = signin.granted // all of it takes longer than a token lives
		say(fmt.Sprintf("Round %d of %d.", round+1, times))
	}
	return nil
}

// give gives the node an image of a program of the project.
func give(ctx context.Context, n node.Node, i image.Image, program string) (reference string, err error) {
	folder, err := build.Own(ctx, program)
	if err != nil {
		return "", err
	}
	i.Program = filepath.Join(folder, filepath.Base(program))
	if i, err = i.Seal(); err != nil {
		return "", err
	}
	return i.Ref(), install.Import(ctx, n, map[string]image.Image{i.Name: i})
}

// change reads what currentuser is to be measured with: another setting (NAME=VALUE),
// another request of CPU (cpu=500m), or an image that has so many layers (layers=12).
func change(ctx context.Context, n node.Node, wanted string) (func(container map[string]any), error) {
	name, value, ok := strings.Cut(wanted, "=")
	switch {
	case !ok || name == "":
		return nil, errors.New("-with: NAME=VALUE")
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
	case name == "layers":
		layers, err := strconv.Atoi(value)
		if err != nil || layers < 1 || layers > 100 {
			return nil, errors.New("-with: layers=1 to 100")
		}
		reference, err := give(ctx, n, image.Image{Name: "dev.local/layers-" + value, Below: layers - 1}, "./functions/currentuser/cmd/currentuser")
		return func(container map[string]any) { container["image"] = reference }, err
	}
	return func(container map[string]any) {
		settings, _ := container["env"].([]any)
		container["env"] = append(settings, map[string]any{"name": name, "value": value})
	}, nil
}

// beside puts a Service beside the functions that is currentuser's but for a change to its
// container, and a route to it. What it has put there is to be removed, also after an error.
func beside(ctx context.Context, n node.Node, name string, change func(container map[string]any)) (remove func(), err error) {
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
		return remove, errors.New("currentuser has not one container")
	}
	change(containers[0].(map[string]any))
	template, err := json.Marshal(service.Spec.Template)
	if err != nil {
		return remove, err
	}
	var manifest bytes.Buffer
	if err := besideYAML.Execute(&manifest, map[string]string{"Name": name, "Template": string(template)}); err != nil {
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

//go:embed beside.yaml
var besideText string

var besideYAML = template.Must(template.New("beside").Parse(besideText))

// client waits for a pod that is slow to start, and not for one that never does.
var client = &http.Client{Timeout: time.Minute}

// asleep waits until none that is measured has a pod, not even one that is on its way out.
func asleep(ctx context.Context, n node.Node, calls []*call) error {
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

// ready waits for the route, which is there a moment after it says so.
func (c *call) ready(ctx context.Context) error {
	status := 0
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
		var err error
		if status, err = c.send(ctx); err == nil && status == http.StatusOK {
			return nil
		}
	}
	return fmt.Errorf("%s answers %d", c.path, status)
}

// reads reads in the log of the pod that the call has woken when it began to listen, by the
// time that the node gave to that line, and how long it took to answer. What has gone again
// is left out.
func (c *call) reads(ctx context.Context, n node.Node) error {
	said, err := n.Kubectl(ctx, nil, "--namespace", knative.Namespace, "logs", "--timestamps", "--tail=-1", "--container=user-container",
		"--ignore-errors", "--selector=serving.knative.dev/service="+c.function)
	if err != nil {
		return err
	}
	listened := false
	for line := range strings.Lines(said) {
		stamp, text, _ := strings.Cut(line, " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		var entry struct {
			Msg string
			Ms  float64
		}
		if err != nil || json.Unmarshal([]byte(text), &entry) != nil || at.Before(c.began) {
			continue
		}
		switch {
		case entry.Msg == "listening" && !listened:
			listened = true
			c.listened = append(c.listened, at.Sub(c.began))
		case entry.Msg == "request":
			c.own = append(c.own, time.Duration(entry.Ms*float64(time.Millisecond)))
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
	answer, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	var grant struct{ Token string }
	json.Unmarshal(body, &grant) // most answers are none
	c.granted = grant.Token
	return answer.StatusCode, err
}

// print prints the quartiles, when the program listened, what it says that its answer took,
// and the mean, beside that of hello, which is the first.
func print(table io.Writer, calls []*call) error {
	out := tabwriter.NewWriter(table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "from zero\ttimes\tfastest\tquarter\tmedian\tthree quarters\tslowest\tlistens\tanswers in\tmean\tto hello's\t")
	floor, _ := mean(calls[0].took)
	for _, c := range calls {
		fmt.Fprintf(out, "%s\t%d\t", c.function, len(c.took))
		for _, q := range []float64{0, 0.25, 0.5, 0.75, 1} {
			fmt.Fprintf(out, "%.2f s\t", quantile(c.took, q).Seconds())
		}
		listened, _ := mean(c.listened)
		own := ""
		if ms, _ := mean(c.own); len(c.own) > 0 { // hello keeps no log
			own = fmt.Sprintf("%.0f ms", ms*1000)
		}
		took, within := mean(c.took)
		fmt.Fprintf(out, "%.2f s\t%s\t%.2f ± %.2f s\t%.2f×\t\n", listened, own, took, within, took/floor)
	}
	return out.Flush()
}

// mean is the mean and its standard error, in seconds.
func mean(of []time.Duration) (m, within float64) {
	for _, d := range of {
		m += d.Seconds() / float64(len(of))
	}
	for _, d := range of {
		within += (d.Seconds() - m) * (d.Seconds() - m)
	}
	return m, math.Sqrt(within / float64(max(1, len(of)-1)) / float64(len(of)))
}

func quantile(of []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}
