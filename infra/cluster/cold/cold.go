//go:build linux

// Package cold measures what a call costs that finds its function asleep: through the
// ingress, with the pod that it starts, to the whole answer. Beside the functions it
// measures hello, a bare net/http in the same place and the same run, since everything
// else about the figures is the machine's.
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
	"net/http"
	"path/filepath"
	"slices"
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
	took                                []time.Duration
}

// orders are those of the calls, round by round: each is in each place, and after each
// other, equally often, for a pod that has just been started is still busy when the next
// one starts. (A Williams design.)
var orders = [4][4]int{{0, 1, 3, 2}, {1, 2, 0, 3}, {2, 3, 1, 0}, {3, 0, 2, 1}}

// Measure puts all functions to sleep and calls each, as many times as are asked for,
// and prints a table.
func Measure(ctx context.Context, n node.Node, times int, say func(string), table io.Writer) error {
	if times < 1 {
		return errors.New("-times: at least once")
	}
	remove, err := beside(ctx, n)
	defer remove()
	if err != nil {
		return err
	}
	credentials := fmt.Sprintf(`{"email":"cold-%d@example.com","password":"correct-horse-battery-staple"}`, time.Now().UnixNano())
	signup := &call{function: "signup", method: http.MethodPost, path: "/api/users/signup", body: credentials}
	hello := &call{function: "hello", method: http.MethodGet, path: "/hello"}
	currentuser := &call{function: "currentuser", method: http.MethodGet, path: "/api/users/currentuser"}
	signin := &call{function: "signin", method: http.MethodPost, path: "/api/users/signin", body: credentials}
	calls := []*call{hello, {function: "jwks", method: http.MethodGet, path: "/.well-known/jwks.json"}, currentuser, signin}
	if status, err := signup.send(ctx); err != nil || status != http.StatusCreated {
		return fmt.Errorf("signup answers %d (%v)", status, err)
	}
	currentuser.token = signup.granted
	if err := hello.ready(ctx); err != nil {
		return err
	}
	for round := range times {
		if err := asleep(ctx, n); err != nil {
			return err
		}
		for _, i := range orders[round%len(orders)] {
			c := calls[i]
			began := time.Now()
			status, err := c.send(ctx)
			if err != nil || status != http.StatusOK {
				return fmt.Errorf("%s answers %d (%v)", c.function, status, err)
			}
			c.took = append(c.took, time.Since(began))
		}
		currentuser.token = signin.granted // all of it takes longer than a token lives
		say(fmt.Sprintf("Round %d of %d.", round+1, times))
	}
	return print(table, calls)
}

// beside puts hello beside the functions. What it has put there is to be removed, also
// after an error.
func beside(ctx context.Context, n node.Node) (remove func(), err error) {
	remove = func() {}
	folder, err := build.Own(ctx, "./infra/bench/bare")
	if err != nil {
		return remove, err
	}
	i, err := image.Image{Name: "dev.local/hello", Program: filepath.Join(folder, "bare")}.Seal()
	if err != nil {
		return remove, err
	}
	if err := install.Import(ctx, n, map[string]image.Image{"hello": i}); err != nil {
		return remove, err
	}
	var manifest bytes.Buffer
	if err := helloYAML.Execute(&manifest, map[string]string{"Image": i.Ref()}); err != nil {
		return remove, err
	}
	text := manifest.String()
	remove = func() {
		n.Kubectl(context.WithoutCancel(ctx), strings.NewReader(text), "delete", "--ignore-not-found", "--wait=false", "-f", "-")
	}
	if _, err := n.Kubectl(ctx, &manifest, "apply", "-f", "-"); err != nil {
		return remove, err
	}
	_, err = n.Kubectl(ctx, nil, "--namespace", knative.Namespace, "wait", "--for=condition=Ready", "--timeout=120s", "services.serving.knative.dev/hello")
	return remove, err
}

//go:embed hello.yaml
var helloText string

var helloYAML = template.Must(template.New("hello").Parse(helloText))

// client waits for a pod that is slow to start, and not for one that never does.
var client = &http.Client{Timeout: time.Minute}

// asleep waits until none that is measured has a pod, not even one that is on its way out.
func asleep(ctx context.Context, n node.Node) error {
	for ctx.Err() == nil {
		pods, err := n.Kubectl(ctx, nil, "--namespace", knative.Namespace, "get", "pods", "--output=name",
			"--selector=serving.knative.dev/service in (hello, jwks, currentuser, signin)")
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

// print prints the quartiles and how each median compares with that of hello, the first.
func print(table io.Writer, calls []*call) error {
	out := tabwriter.NewWriter(table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "from zero\ttimes\tfastest\tquarter\tmedian\tthree quarters\tslowest\tto hello\t")
	floor := float64(quantile(calls[0].took, 0.5))
	for _, c := range calls {
		fmt.Fprintf(out, "%s\t%d\t", c.function, len(c.took))
		for _, q := range []float64{0, 0.25, 0.5, 0.75, 1} {
			fmt.Fprintf(out, "%.2f s\t", quantile(c.took, q).Seconds())
		}
		fmt.Fprintf(out, "%.2f×\t\n", float64(quantile(c.took, 0.5))/floor)
	}
	return out.Flush()
}

func quantile(took []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}
