package monitoring

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"knative.dev/pkg/observability/metrics"
	"knative.dev/pkg/observability/semconv"
	knative "knative.dev/serving/pkg/metrics"
	"knative.dev/serving/pkg/queue"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/telemetry/otlp"
)

// A platform is the part of a cluster that sends metrics to a collector.
type platform struct {
	t         *testing.T
	to        *collector
	activator *metrics.MeterProvider
	pods      map[string]*pod // the running pod of each function
	counted   atomic.Int64    // requests that pods have answered
}

// A pod is a process of a function and its queue-proxy.
type pod struct {
	*telemetry.Telemetry
	cfg    *config.Config
	meters *metrics.MeterProvider
	queue  http.Handler
}

func newPlatform(t *testing.T, to *collector) *platform {
	p := &platform{t: t, to: to, pods: map[string]*pod{}}
	// as knative.dev/pkg/observability/resource, which needs an older version of the SDK
	p.activator = p.meters(resource.NewSchemaless(semconv.K8SNamespaceName("knative-serving"), semconv.ServiceName("activator"), semconv.K8SPodName("activator-1")))
	t.Cleanup(func() { p.stop() })
	return p
}

// meters returns the meters of a component of Knative. Their interval is longer than a test.
func (p *platform) meters(of *resource.Resource) *metrics.MeterProvider {
	p.t.Helper()
	m, err := metrics.NewMeterProvider(context.Background(),
		metrics.Config{Protocol: metrics.ProtocolHTTPProtobuf, Endpoint: "http://" + p.to.otlp + "/v1/metrics", ExportInterval: time.Hour}, sdk.WithResource(of))
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

var started int // pods

// start starts a pod. The attributes of the queue-proxy are those of knative.dev/serving/pkg/queue/sharedmain.
func (p *platform) start(function string) *pod {
	p.t.Helper()
	cfg := config.New(func(name string) (string, bool) {
		if name == "OTEL_EXPORTER_OTLP_ENDPOINT" {
			return "http://" + p.to.otlp, true
		}
		return "", false
	}, func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(p.t.Output(), o) }, time.Now)
	otlp.Start(cfg, function)
	if err := cfg.Err(); err != nil {
		p.t.Fatal(err)
	}
	started++
	name := fmt.Sprintf("%s-00001-%d", function, started)
	meters := p.meters(resource.NewSchemaless(semconv.K8SContainerName("queue-proxy"), semconv.K8SNamespaceName("ticketing"),
		semconv.K8SPodName(name), semconv.ServiceName(function), semconv.ServiceInstanceID(name),
		knative.ServiceNameKey.With(function), knative.ConfigurationNameKey.With(function), knative.RevisionNameKey.With(function+"-00001")))
	handler, err := queue.NewAppRequestMetricsHandler(meters, http.HandlerFunc(answer), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	// the queue-proxy sends these as well, and the collector must drop them
	handler = otelhttp.NewHandler(handler, "queue", otelhttp.WithMeterProvider(meters))
	pod := &pod{Telemetry: telemetry.FromConfig(cfg), cfg: cfg, meters: meters, queue: handler}
	p.pods[function] = pod
	return pod
}

// answer is the function: the query has the status and the duration of its response.
func answer(w http.ResponseWriter, r *http.Request) {
	status, _ := strconv.Atoi(r.FormValue("status"))
	if d, _ := time.ParseDuration(r.FormValue("after")); d > 0 {
		time.Sleep(d)
	}
	w.WriteHeader(status)
}

// stop stops a pod as its SIGTERM does: both processes export their last values. Without a name, stop stops all
// pods.
func (p *platform) stop(functions ...string) {
	for function, pod := range p.pods {
		if len(functions) > 0 && function != functions[0] {
			continue
		}
		if err := pod.cfg.Close(context.Background()); err != nil {
			p.t.Error(err)
		}
		if err := pod.meters.Shutdown(context.Background()); err != nil {
			p.t.Error(err)
		}
		delete(p.pods, function)
	}
}

// request sends a request through the activator to the pod of a function. It has the attributes that
// knative.dev/serving/pkg/activator/handler adds. Without a pod, the activator answers 503.
func (p *platform) request(namespace, function string, status int, after time.Duration) {
	h := otelhttp.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		labeler, _ := otelhttp.LabelerFromContext(r.Context())
		labeler.Add(knative.ServiceNameKey.With(function), knative.ConfigurationNameKey.With(function),
			knative.RevisionNameKey.With(function+"-00001"), knative.K8sNamespaceKey.With(namespace))
		if pod := p.pods[function]; pod != nil {
			pod.queue.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}), "handle", otelhttp.WithMeterProvider(p.activator))
	if p.pods[function] != nil {
		p.counted.Add(1)
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, fmt.Sprintf("/?status=%d&after=%s", status, after), nil))
}

// flush exports the metrics of all processes, and returns when the collector has them.
func (p *platform) flush() string {
	p.t.Helper()
	ctx := context.Background()
	for _, pod := range p.pods {
		pod.Flush(ctx)
	}
	force(p.t, p.activator)
	for _, pod := range p.pods {
		force(p.t, pod.meters) // last: see below
	}
	scraped := ""
	eventually(p.t, "the collector has all requests", func() bool {
		scraped = p.to.scrape(p.t)
		return sum(scraped, `kn_serving_invocation_duration_seconds_count{.*`) == float64(p.counted.Load())
	})
	return scraped
}

func force(t *testing.T, m *metrics.MeterProvider) {
	t.Helper()
	if err := m.MeterProvider.(*sdk.MeterProvider).ForceFlush(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// sum adds the values of the series that match a pattern.
func sum(scraped, series string) (total float64) {
	for _, m := range regexp.MustCompile(`(?m)^`+series+` (\S+)$`).FindAllStringSubmatch(scraped, -1) {
		v, _ := strconv.ParseFloat(m[1], 64)
		total += v
	}
	return total
}
