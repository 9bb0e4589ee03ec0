package monitoring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// program returns the path of a program of the Debian package prometheus. It skips the test if there is none.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not on the PATH: install the Debian package prometheus", name)
	}
	return path
}

// A prometheus is a process of the real Prometheus, with the rules of the component. It scrapes a collector
// each second, and evaluates the rules each second.
type prometheus struct {
	url string
	now time.Time
}

// startPrometheus starts Prometheus with a history: the metrics of a collector at the end of each minute. The
// last minute ended some time ago.
func startPrometheus(t *testing.T, of *collector, history []string, ago time.Duration) *prometheus {
	t.Helper()
	dir, address := t.TempDir(), freeAddress(t)
	p := &prometheus{url: "http://" + address, now: time.Now().Truncate(time.Second)}
	past := filepath.Join(dir, "history")
	if err := os.WriteFile(past, openMetrics(of, history, p.now.Add(-ago)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program(t, "promtool"), "tsdb", "create-blocks-from", "openmetrics", "--quiet", past, filepath.Join(dir, "data")).CombinedOutput(); err != nil {
		t.Fatalf("promtool does not accept the history: %v\n%s", err, out)
	}
	rules, err := filepath.Abs(folder + "rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	configuration := fmt.Sprintf(`{global: {scrape_interval: 1s, evaluation_interval: 1s}, rule_files: [%q], scrape_configs: [{job_name: collector, static_configs: [{targets: [%q]}]}]}`, rules, of.scraped)
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	process := exec.Command(program(t, "prometheus"), "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--log.level=error")
	process.Stderr = &stderr
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		if t.Failed() {
			t.Logf("prometheus: %s", &stderr)
		}
	})
	eventually(t, "Prometheus is ready", func() bool {
		r, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return p
}

// openMetrics returns a history with times, and with the labels that Prometheus adds to the series of a target.
func openMetrics(of *collector, history []string, now time.Time) []byte {
	var b bytes.Buffer
	for i, scraped := range history {
		at := now.Add(-time.Duration(len(history)-1-i) * time.Minute).Unix()
		for line := range strings.Lines(scraped) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			series, value, _ := strings.Cut(line, "} ")
			fmt.Fprintf(&b, "%s,instance=%q,job=\"collector\"} %s %d\n", series, of.scraped, strings.TrimSpace(value), at)
		}
	}
	b.WriteString("# EOF\n")
	return b.Bytes()
}

// api returns the data of a request to the HTTP API.
func api[T any](t *testing.T, p *prometheus, path string, query url.Values) (data T) {
	t.Helper()
	var answer struct{ Data *T }
	answer.Data = &data
	if err := json.Unmarshal([]byte(get(t, p.url+"/api/v1/"+path+"?"+query.Encode())), &answer); err != nil {
		t.Fatal(err)
	}
	return data
}

// query returns the values of an expression by the labels of their series, now.
func (p *prometheus) query(t *testing.T, expression string) map[string]float64 {
	t.Helper()
	type result struct {
		Result []struct {
			Metric map[string]string
			Value  []any
		}
	}
	values := map[string]float64{}
	for _, r := range api[result](t, p, "query", url.Values{"query": {expression}}).Result {
		v, err := strconv.ParseFloat(r.Value[1].(string), 64)
		if err != nil {
			t.Fatal(err)
		}
		values[fmt.Sprint(r.Metric)] = v
	}
	return values
}

// firedDuring returns the minutes of the last hour at which an expression had a result.
func (p *prometheus) firedDuring(t *testing.T, expression string) (at []string) {
	t.Helper()
	type result struct {
		Result []struct{ Values [][]any }
	}
	for _, r := range api[result](t, p, "query_range", url.Values{"query": {expression}, "step": {"60"},
		"start": {strconv.FormatInt(p.now.Add(-time.Hour).Unix(), 10)}, "end": {strconv.FormatInt(p.now.Unix(), 10)}}).Result {
		for _, v := range r.Values {
			at = append(at, time.Unix(int64(v[0].(float64)), 0).Sub(p.now).String())
		}
	}
	return at
}

// firing waits until Prometheus has evaluated all rules three times, so that each alert has seen each recorded
// value. It returns the names of the alerts that are not inactive.
func (p *prometheus) firing(t *testing.T) (names []string) {
	t.Helper()
	type group struct {
		Name           string
		LastEvaluation time.Time
		Rules          []struct{ Name, State, Health, LastError string }
	}
	seen := map[string][]time.Time{}
	var groups []group
	eventually(t, "all rules have been evaluated", func() bool {
		groups = api[struct{ Groups []group }](t, p, "rules", nil).Groups
		all := len(groups) > 0
		for _, g := range groups {
			if !g.LastEvaluation.IsZero() && !slices.Contains(seen[g.Name], g.LastEvaluation) {
				seen[g.Name] = append(seen[g.Name], g.LastEvaluation)
			}
			all = all && len(seen[g.Name]) >= 3
		}
		return all
	})
	for _, g := range groups {
		for _, r := range g.Rules {
			if r.Health != "ok" {
				t.Errorf("the rule %s: got %s %s, want ok", r.Name, r.Health, r.LastError)
			}
			if r.State != "" && r.State != "inactive" {
				names = append(names, r.Name+" "+r.State)
			}
		}
	}
	slices.Sort(names)
	return names
}
