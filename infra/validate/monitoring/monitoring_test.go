package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"ticketing.com/auth/shared/telemetry"
)

// A minute is the traffic of one minute.
type minute struct {
	signins, slowSignins, failedSignins int
	noSigninPod                         bool
	refreshes, failedRefreshes, reused  int
	mails, failedMails                  int
	relay                               bool    // runs
	age, refused                        float64 // of the outbox, after the run
}

// normal returns the traffic of a minute without a fault. In an hour, single requests fail or are slow, and
// single used tokens are presented.
func normal(at int) minute {
	m := minute{signins: 120, refreshes: 120, mails: 2, relay: at%5 == 0}
	switch at {
	case 10, 50:
		m.reused = 1
	case 15:
		m.age = 20
	case 20:
		m.failedRefreshes = 1
	case 40:
		m.slowSignins, m.failedMails = 1, 1
	}
	return m
}

const minutes = 66

// replay plays the traffic of minutes in less time. Most pods live for two minutes of it. It returns the
// metrics of the collector at the end of each minute.
func replay(t *testing.T, to *collector, traffic func(at int) minute) (history []string) {
	t.Helper()
	p := newPlatform(t, to)
	for at := range minutes {
		for _, function := range []string{"signin", "refresh", "mail", "revocations"} {
			if at%2 == 0 {
				p.stop(function)
			}
			if p.pods[function] == nil {
				p.start(function)
			}
		}
		p.play(traffic(at))
		history = append(history, p.flush())
	}
	return history
}

func (p *platform) play(m minute) {
	ctx := context.Background()
	if m.noSigninPod {
		p.stop("signin")
	}
	var group sync.WaitGroup
	for range m.slowSignins {
		group.Go(func() { p.request("ticketing", "signin", 200, 1010*time.Millisecond) })
	}
	for range m.signins {
		p.request("ticketing", "signin", 200, 0)
	}
	for range m.failedSignins {
		p.request("ticketing", "signin", 500, 0)
	}
	if pod := p.pods["signin"]; pod != nil {
		p.request("ticketing", "signin", 401, 0)
		p.request("ticketing", "signin", 429, 0)
		for range m.signins {
			pod.Count(ctx, telemetry.PasswordChecks, "succeeded")
			pod.Observe(ctx, telemetry.HashWait, 0.002, "")
			pod.Count(ctx, telemetry.EventsSent, "com.ticketing.user.signedin.v1")
		}
		pod.Count(ctx, telemetry.PasswordChecks, "failed")
		pod.Count(ctx, telemetry.RateLimited, "signin")
		pod.Count(ctx, telemetry.HashRefusals, "")
		pod.Answered(ctx, time.Now())
	}
	for range m.refreshes {
		p.request("ticketing", "refresh", 200, 0)
		p.pods["refresh"].Count(ctx, telemetry.Refreshes, "rotated")
	}
	for range m.failedRefreshes {
		p.request("ticketing", "refresh", 503, 0)
		p.pods["refresh"].Count(ctx, telemetry.Refreshes, "unavailable")
	}
	for range m.reused {
		p.request("ticketing", "refresh", 401, 0)
		p.pods["refresh"].Count(ctx, telemetry.Refreshes, "reused")
		p.pods["refresh"].Count(ctx, telemetry.SessionsEnded, "theft")
	}
	for range m.mails {
		p.pods["mail"].Count(ctx, telemetry.Mails, "sent")
	}
	for range m.failedMails {
		p.pods["mail"].Count(ctx, telemetry.Mails, "failed")
	}
	p.request("ticketing", "revocations", 200, 0)
	p.pods["revocations"].Observe(ctx, telemetry.RevocationsSize, 3, "")
	p.pods["revocations"].Observe(ctx, telemetry.RevocationsAge, 5, "")
	if m.relay {
		relay := p.start("relay")
		p.request("ticketing", "relay", 200, 0)
		relay.Observe(ctx, telemetry.OutboxDepth, min(1, m.age), "undelivered")
		relay.Observe(ctx, telemetry.OutboxDepth, m.refused, "refused")
		relay.Observe(ctx, telemetry.OutboxAge, m.age, "")
		p.stop("relay")
	}
	group.Wait()
}

func TestAlerts_NormalHour(t *testing.T) {
	program(t, "prometheus")
	to := startCollector(t)
	history := replay(t, to, normal)
	p := startPrometheus(t, to, history, 0)
	if got := p.firing(t); len(got) > 0 {
		t.Errorf("got the alerts %v, want none", got)
	}
	scraped := history[len(history)-1]

	t.Run("no alert fires at any minute", func(t *testing.T) {
		recorded := map[string]string{}
		for _, r := range rules(t) {
			if r.Record != "" {
				recorded[r.Record+`{objective="`+r.Labels["objective"]+`"}`] = "(" + r.Expr + ")"
			}
		}
		for _, r := range rules(t) {
			if r.Alert == "" {
				continue
			}
			expression := r.Expr
			for name, of := range recorded {
				expression = strings.ReplaceAll(expression, name, of)
			}
			if at := p.firedDuring(t, expression); len(at) > 0 {
				t.Errorf("%s: got a result at %v, want none", r.Alert, at)
			}
		}
	})
	t.Run("each name of a metric exists", func(t *testing.T) {
		for _, e := range append(expressions(t), panels(t)...) {
			for _, name := range names(t, e) {
				if len(p.query(t, `{__name__="`+name+`"}`)) == 0 {
					t.Errorf("%s: Prometheus has no metric %s", e, name)
				}
			}
		}
	})
	t.Run("each panel has data", func(t *testing.T) {
		for _, e := range panels(t) {
			values := p.query(t, e)
			if len(values) == 0 || !slices.ContainsFunc(slices.Collect(maps.Values(values)), func(v float64) bool { return v == v }) {
				t.Errorf("%s: got %v, want a number", e, values)
			}
		}
	})
	t.Run("the dashboard has each metric", func(t *testing.T) {
		all := strings.Join(panels(t), "\n")
		for _, m := range telemetry.Metrics() {
			name := regexp.MustCompile(`(?m)^# HELP (\S+) ` + regexp.QuoteMeta(m.About) + `$`).FindStringSubmatch(scraped)
			if name == nil || !strings.Contains(all, name[1]) {
				t.Errorf("%s: got the name %q, want one that a panel has", m.Name, name)
			}
		}
	})
	t.Run("no series of a pod", func(t *testing.T) {
		for _, unwanted := range []string{"-00001", "instance", "queue-proxy", "go_", "http_request_method", `function=""`} {
			if strings.Contains(scraped, unwanted) {
				t.Errorf("the collector shows %q", unwanted)
			}
		}
	})
	t.Run("the metrics stop", func(t *testing.T) {
		gone := startPrometheus(t, &collector{scraped: freeAddress(t)}, history, 30*time.Minute)
		if got, want := gone.firing(t), []string{"AuthTelemetryMissing firing"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestAlerts_Faults(t *testing.T) {
	program(t, "prometheus")
	for _, c := range []struct {
		name    string
		traffic func(at int) minute
		want    []string
	}{
		{"many failures", func(at int) minute {
			m := normal(at)
			if at >= 30 {
				m.refused = 3
			}
			if at >= 15 {
				m.age = 400
			}
			if at >= 45 {
				m.failedMails = 2
			}
			if at >= minutes-3 {
				m.slowSignins, m.failedRefreshes, m.reused = 40, 40, 20
			}
			return m
		}, []string{"AuthEventsRefused", "AuthMailsFailing", "AuthOutboxBudgetFast", "AuthOutboxBudgetSlow", "AuthRefreshBudgetFast",
			"AuthRefreshBudgetSlow", "AuthSigninBudgetFast", "AuthSigninBudgetSlow", "AuthTokenReuse"}},
		{"few failures", func(at int) minute {
			m := normal(at)
			if at%3 == 0 {
				m.failedSignins, m.failedRefreshes = 1, 1
			}
			if at == 10 {
				m.age = 90
			}
			return m
		}, []string{"AuthRefreshBudgetSlow", "AuthSigninBudgetSlow"}},
		{"no pods", func(at int) minute {
			m := normal(at)
			m.relay = m.relay && at <= 40
			m.noSigninPod = at >= minutes-3
			return m
		}, []string{"AuthRelayStopped", "AuthSigninBudgetFast", "AuthSigninBudgetSlow"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := startCollector(t)
			p := startPrometheus(t, to, replay(t, to, c.traffic), 0)
			for i := range c.want {
				c.want[i] += " firing"
			}
			if got := p.firing(t); !slices.Equal(got, c.want) {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
		})
	}
}

// Pods that live for less time than an interval export at the same time. No value is lost.
func TestCollector_AddsPods(t *testing.T) {
	to := startCollector(t)
	const pods, each = 50, 20
	var platforms []*platform
	for range pods {
		platforms = append(platforms, newPlatform(t, to))
	}
	for _, p := range platforms {
		p.start("signin")
	}
	var group sync.WaitGroup
	for _, p := range slices.Backward(platforms) { // the newest pod first
		group.Go(func() {
			for range each {
				p.request("ticketing", "signin", 200, 0)
				p.pods["signin"].Count(context.Background(), telemetry.PasswordChecks, "succeeded")
				p.pods["signin"].Observe(context.Background(), telemetry.HashWait, 0.3, "")
			}
			p.stop()
			force(t, p.activator)
		})
	}
	group.Wait()
	const function = `\{.*function="signin".*\}`
	for _, series := range []string{"auth_password_checks_total", "auth_password_hash_wait_duration_seconds_count",
		"kn_serving_invocation_duration_seconds_count", "http_server_request_duration_seconds_count"} {
		got := 0.0
		eventually(t, series, func() bool {
			got = sum(to.scrape(t), series+function)
			return got >= pods*each
		})
		if got != pods*each {
			t.Errorf("%s: got %v, want %d", series, got, pods*each)
		}
	}
}

// The component config-observability applies to all namespaces.
func TestCollector_DropsOtherNamespaces(t *testing.T) {
	to := startCollector(t)
	p := newPlatform(t, to)
	p.start("signin")
	p.request("other", "signin", 500, 0)
	p.request("ticketing", "signin", 200, 0)
	scraped := p.flush()
	if got := sum(scraped, `http_server_request_duration_seconds_count\{.*\}`); got != 1 {
		t.Errorf("got %v requests at the activator, want 1 of the namespace ticketing\n%s", got, scraped)
	}
}

// A client may send JSON. The spans go to the storage that the operator names.
func TestCollector_JSONAndTraces(t *testing.T) {
	spans := make(chan string, 1)
	storage := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { spans <- r.URL.Path }))
	t.Cleanup(storage.Close)
	t.Setenv("TRACES_EXPORTER", "otlp_http")
	t.Setenv("TRACES_ENDPOINT", storage.URL)
	to := startCollector(t)
	post := func(path, body string) {
		r, err := http.Post("http://"+to.otlp+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusOK {
			t.Fatalf("%s: got %s, want 200", path, r.Status)
		}
	}
	post("/v1/metrics", `{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"mail"}}]},"scopeMetrics":[{"metrics":[
		{"name":"auth.mails","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{"asInt":"7","startTimeUnixNano":"1","timeUnixNano":"2"}]}}]}]}]}`)
	eventually(t, "the metric is there", func() bool { return sum(to.scrape(t), `auth_mails_total\{function="mail"\}`) == 7 })
	post("/v1/traces", `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","name":"signin","startTimeUnixNano":"1","endTimeUnixNano":"2"}]}]}]}`)
	if got := <-spans; got != "/v1/traces" {
		t.Errorf("the storage got %s, want /v1/traces", got)
	}
}

// promtool plays eight hours for each condition of each alert alone.
func TestRules_Promtool(t *testing.T) {
	promtool := program(t, "promtool")
	if out, err := exec.Command(promtool, "check", "rules", "--lint-fatal", folder+"rules.yaml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	const requests, zero, once = "0+120x480", "0x480", "0x240 1x239"
	const queue, bucket, activator = "kn_serving_invocation_duration_seconds_count", "kn_serving_invocation_duration_seconds_bucket", "http_server_request_duration_seconds_count"
	const (
		fast    = bucket + `{function="signin", http_response_status_code="200", le="1"}`
		failed  = activator + `{function="refresh", http_response_status_code="503"}`
		relay   = queue + `{function="relay", http_response_status_code="200"}`
		relayed = activator + `{function="relay", http_response_status_code="200"}`
		pods    = `faas_init_duration_seconds_count{function="signin"}`
		age     = `auth_outbox_age_seconds{function="relay"}`
		refused = `auth_outbox_accounts{function="relay", auth_outbox_state="refused"}`
		reused  = `auth_refreshes_total{function="refresh", auth_outcome="reused"}`
		mailed  = `auth_mails_total{function="mail", auth_outcome="sent"}`
		unsent  = `auth_mails_total{function="mail", auth_outcome="failed"}`
	)
	runs := ""
	for i := range 97 {
		runs += fmt.Sprintf("%dx4 ", i)
	}
	normal := map[string]string{
		queue + `{function="signin", http_response_status_code="200"}`: requests, fast: requests,
		activator + `{function="signin", http_response_status_code="200"}`:  requests,
		activator + `{function="signin", http_response_status_code="503"}`:  once,
		activator + `{function="signin", http_response_status_code="429"}`:  "0+900x480",
		activator + `{function="refresh", http_response_status_code="200"}`: requests, failed: once,
		relay: runs, relayed: runs, pods: zero, age: zero, refused: zero,
		`auth_refreshes_total{function="refresh", auth_outcome="rotated"}`: requests, reused: once,
		mailed: "0+2x480", unsent: once,
	}
	// set returns values for the series of requests with one of the prefixes. The series of rare failures stay as
	// they are, except in a deployment that is new.
	set := func(values string, prefixes ...string) map[string]string {
		changed := map[string]string{}
		for name, usual := range normal {
			if (usual != once || strings.HasPrefix(values, "_")) && slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
				changed[name] = values
			}
		}
		return changed
	}
	with := func(change, more map[string]string) map[string]string {
		maps.Copy(change, more)
		return change
	}
	// The collector repeats the last values of senders that have stopped.
	const constant, ending, absent = "0+120x440 52800x39", "0+120x440", "_x480"
	both := []string{queue, bucket, activator}
	running := map[string]string{relay: runs, relayed: runs}
	ended := map[string]string{relay: "0x4 1x4 2x470", relayed: "0x4 1x4 2x470"}
	late := strings.Repeat("0x54 400x4 ", 8) + "400"
	tests := []any{}
	untested := map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert != "" {
			untested[r.Alert] = true
		}
	}
	for name, c := range map[string]struct {
		change map[string]string
		want   string
	}{
		"normal":                                   {},
		"3 % of the sign-ins slow for an hour":     {map[string]string{fast: "0+120x478 57360x1"}, "AuthSigninBudgetFast AuthSigninBudgetSlow"},
		"0.75 % of the sign-ins slow for 6 hours":  {map[string]string{fast: "0+119.1x480"}, "AuthSigninBudgetFast AuthSigninBudgetSlow"},
		"0.3 % of the sign-ins slow":               {map[string]string{fast: "0+119.6x480"}, "AuthSigninBudgetSlow"},
		"3 % of the refreshes fail for an hour":    {map[string]string{failed: "0x477 80+80x2"}, "AuthRefreshBudgetFast AuthRefreshBudgetSlow"},
		"0.75 % of the refreshes fail for 6 hours": {map[string]string{failed: "0+0.9x480"}, "AuthRefreshBudgetFast AuthRefreshBudgetSlow"},
		"0.3 % of the refreshes fail":              {map[string]string{failed: "0+0.4x480"}, "AuthRefreshBudgetSlow"},
		"the outbox is late for 15 minutes":        {map[string]string{age: "0x465 400x14"}, "AuthOutboxBudgetFast"},
		"the outbox is late each hour":             {map[string]string{age: late}, "AuthOutboxBudgetFast"},
		"the outbox is late for an hour":           {map[string]string{age: "0x419 400x59"}, "AuthOutboxBudgetFast AuthOutboxBudgetSlow"},
		"the outbox was late for 50 minutes":       {map[string]string{age: "0x199 400x49 0x229"}, "AuthOutboxBudgetSlow"},
		"the first run of relay leaves an event":   {map[string]string{age: "_x10 90x4 0x464"}, ""},
		"a failure in a quiet night":               {map[string]string{activator + `{function="refresh", http_response_status_code="200"}`: "0+0.05x480", failed: "0x470 1x9"}, ""},
		"two failures in a quiet night":            {map[string]string{activator + `{function="refresh", http_response_status_code="200"}`: "0+0.05x480", failed: "0x460 1x15 2x3"}, "AuthRefreshBudgetFast"},
		"relay stops":                              {ended, "AuthRelayStopped"},
		"no request but those of relay":            {with(set(zero, both...), running), ""},
		"relay stops, without other requests":      {with(set(zero, both...), ended), "AuthTelemetryMissing"},
		"no pod of relay starts":                   {with(maps.Clone(ended), map[string]string{activator + `{function="relay", http_response_status_code="503"}`: runs}), "AuthRelayStopped"},
		"the sink refuses events":                  {map[string]string{refused: "0x420 3x59"}, "AuthEventsRefused"},
		"used tokens":                              {map[string]string{reused: "0x460 60x19"}, "AuthTokenReuse"},
		"the mail server is down":                  {map[string]string{unsent: "0x460 30x19"}, "AuthMailsFailing"},
		"the attempts of one mail":                 {map[string]string{unsent: "0x460 6 7 8x1 9x3 10x8 11x2", mailed: zero}, ""},
		"the attempts of two mails":                {map[string]string{unsent: "0x460 12 14 16x1 18x3 20x8 22x2", mailed: zero}, ""},
		"Knative sends nothing":                    {set(constant, both...), "AuthTelemetryMissing"},
		"the activator sends nothing":              {set(constant, activator), "AuthTelemetryMissing"},
		"the queue-proxies send nothing":           {set(constant, queue, bucket), "AuthTelemetryMissing"},
		"the collector is away":                    {with(set(ending, both...), map[string]string{pods: "0x440"}), "AuthTelemetryMissing"},
		"the series of the activator end":          {set(ending, activator), "AuthTelemetryMissing"},
		"Knative has never sent requests":          {set(absent, both...), "AuthTelemetryMissing"},
		"a new deployment without requests":        {with(set(absent, both...), map[string]string{pods: absent}), ""},
		"the first request was 19 minutes ago":     {with(set("_x461 1x18", both...), map[string]string{pods: "_x461 1x18"}), ""},
		"the only request was 40 minutes ago":      {with(set("_x441 1x38", both...), map[string]string{pods: "_x441 1x38"}), "AuthTelemetryMissing"},
	} {
		var series []map[string]string
		all := maps.Clone(normal)
		maps.Copy(all, c.change)
		for name, values := range all {
			series = append(series, map[string]string{"series": name, "values": strings.TrimSpace(values)})
		}
		samples := []any{}
		for name := range strings.FieldsSeq(c.want) {
			delete(untested, name)
			samples = append(samples, map[string]any{"labels": `{alertname="` + name + `"}`, "value": 1})
		}
		expression := `count by (alertname) (ALERTS{alertstate="firing"})`
		if c.want == "" { // at no time
			expression = `count_over_time(ALERTS[8h])`
		}
		tests = append(tests, map[string]any{"name": name, "interval": "1m", "input_series": series,
			"promql_expr_test": []any{map[string]any{"expr": expression, "eval_time": "8h", "exp_samples": samples}}})
	}
	if len(untested) > 0 {
		t.Errorf("no case makes these alerts fire: %v", slices.Sorted(maps.Keys(untested)))
	}
	absolute, err := filepath.Abs(folder + "rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// JSON is YAML
	written, err := json.Marshal(map[string]any{"rule_files": []string{absolute}, "evaluation_interval": "5m", "tests": tests})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tests.yaml")
	if err := os.WriteFile(path, written, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "test", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAlerts_Runbook(t *testing.T) {
	page, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if want := "infra/docs/monitoring.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want || !strings.Contains(string(page), "\n### "+r.Alert+"\n") {
			t.Errorf("%s: got the runbook %s, want %s and a heading of the page", r.Alert, r.Annotations["runbook_url"], want)
		}
	}
}

// A rule is a rule of rules.yaml.
type rule struct {
	Record, Alert, Expr string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	written, err := os.ReadFile(folder + "rules.yaml")
	if err == nil {
		err = yaml.Unmarshal(written, &file)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if err != nil || len(all) == 0 {
		t.Fatalf("got no rules and the error %v", err)
	}
	return all
}

func expressions(t *testing.T) (all []string) {
	t.Helper()
	for _, r := range rules(t) {
		all = append(all, r.Expr)
	}
	return all
}

// panels returns the queries of the dashboard, with a value for Grafana's variable.
func panels(t *testing.T) (all []string) {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	written, err := os.ReadFile(folder + "dashboard.json")
	if err == nil {
		err = json.Unmarshal(written, &dashboard)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("the panel %s has no query", p.Title)
		}
		for _, q := range p.Targets {
			all = append(all, strings.ReplaceAll(q.Expr, "$__rate_interval", "5m"))
		}
	}
	return all
}

// names returns the names of the metrics in an expression.
func names(t *testing.T, expression string) (all []string) {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		t.Fatal(err)
	}
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		if s, is := n.(*parser.VectorSelector); is && s.Name != "" {
			all = append(all, s.Name)
		}
		return nil
	})
	return all
}
