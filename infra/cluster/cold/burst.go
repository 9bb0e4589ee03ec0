//go:build linux

package cold

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"ticketing.com/auth/infra/cluster/node"
	"ticketing.com/auth/infra/knative"
)

// Burst signs in to many accounts at the same moment while signin is scaled to zero.
// Each account signs in once, over its own connection. Burst prints the latencies by
// status, and the number of pods that had started by the last response.
func Burst(ctx context.Context, n node.Node, clients int, progress func(string), table io.Writer) error {
	if clients < 1 {
		return errors.New("-burst must be at least 1")
	}
	calls := make([]*call, clients)
	for i := range calls {
		body := fmt.Sprintf(`{"email":"burst-%d-%d@example.com","password":"correct-horse-battery-staple"}`, time.Now().UnixNano(), i)
		signup := &call{function: "signup", method: http.MethodPost, path: "/api/users/signup", body: body}
		if status, err := signup.send(ctx); err != nil || status != http.StatusCreated {
			return fmt.Errorf("signup returned status %d (%v)", status, err)
		}
		calls[i] = &call{function: "signin", method: http.MethodPost, path: "/api/users/signin", body: body}
	}
	progress(fmt.Sprintf("%d accounts exist.", clients))
	if err := waitScaledToZero(ctx, n, calls[:1]); err != nil {
		return err
	}
	progress("signin is scaled to zero.")
	client.CloseIdleConnections()
	podCtx, stop := context.WithCancel(ctx)
	pods := make(chan int)
	go func() { pods <- countPods(podCtx, n, "signin") }()
	var all sync.WaitGroup
	var mu sync.Mutex
	latencies := map[string][]time.Duration{}
	start := time.Now()
	for _, c := range calls {
		all.Go(func() {
			status, err := c.send(ctx)
			elapsed := time.Since(start)
			outcome := fmt.Sprint(status)
			if err != nil {
				outcome = "no response"
			}
			mu.Lock()
			defer mu.Unlock()
			latencies[outcome] = append(latencies[outcome], elapsed)
		})
	}
	all.Wait()
	stop()
	started := <-pods
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	out := tabwriter.NewWriter(table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "status\trequests\tfastest\tmedian\tslowest\t")
	for _, status := range slices.Sorted(maps.Keys(latencies)) {
		fmt.Fprintf(out, "%s\t%d\t", status, len(latencies[status]))
		for _, q := range []float64{0, 0.5, 1} {
			fmt.Fprintf(out, "%.2f s\t", quantile(latencies[status], q).Seconds())
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "pods\t%d\t\n", started)
	return out.Flush()
}

// countPods counts the pods that a function has, or has had, until ctx ends.
func countPods(ctx context.Context, n node.Node, function string) int {
	seen := map[string]bool{}
	for ctx.Err() == nil {
		names, _ := n.Kubectl(ctx, nil, "--namespace", knative.Namespace, "get", "pods", "--output=name",
			"--selector=serving.knative.dev/service="+function)
		for name := range strings.FieldsSeq(names) {
			seen[name] = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return len(seen)
}
