// Package otlp exports the spans and the metrics of a process to an OpenTelemetry collector, by OTLP
// over HTTP in JSON.
package otlp

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/net/http/httpguts"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/telemetry/process"
	"ticketing.com/auth/shared/tlsconfig"
)

// interval is the time between two exports of the metrics.
const interval = 10 * time.Second

// Start starts the export if OTEL_EXPORTER_OTLP_ENDPOINT is set. Otherwise it does nothing. name is
// the name of the service, unless OTEL_SERVICE_NAME is set. cfg.Close exports what is left.
//
// The SDK itself reads the other OTEL_ variables that the specification of OpenTelemetry defines.
func Start(cfg *config.Config, name string) {
	endpoint := strings.TrimSuffix(cfg.Text("OTEL_EXPORTER_OTLP_ENDPOINT", ""), "/")
	if endpoint == "" {
		return
	}
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery+u.Fragment != "" || u.User != nil {
		cfg.Problem("OTEL_EXPORTER_OTLP_ENDPOINT", "must be the URL of a collector without credentials, such as http://collector:4318")
		return
	}
	c := client{endpoint, headers(cfg), timeout(cfg), &http.Client{
		Transport: transport(cfg), Timeout: timeout(cfg),
		// a redirect would send the headers, which can have a key, to another host
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if err := start(cfg, c, name); err != nil {
		cfg.Problem("OTEL_EXPORTER_OTLP_ENDPOINT", "is set, but the export cannot start: check the other OTEL_ variables")
	}
}

// timeout returns the time limit of an export.
func timeout(cfg *config.Config) time.Duration {
	const minute = 60_000 // ms
	return time.Duration(cfg.Number("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000, 1, minute)) * time.Millisecond
}

// headers returns the headers of each request. The setting is a list such as "a=1,b=2", with values in
// percent-encoding (OpenTelemetry Protocol Exporter, "Specifying headers via environment variables").
func headers(cfg *config.Config) http.Header {
	const setting = "OTEL_EXPORTER_OTLP_HEADERS"
	h := http.Header{"Content-Type": {"application/json"}}
	for element := range strings.SplitSeq(cfg.Text(setting, ""), ",") {
		if strings.TrimSpace(element) == "" {
			continue
		}
		key, text, found := strings.Cut(element, "=")
		value, err := url.PathUnescape(strings.TrimSpace(text))
		if key = strings.TrimSpace(key); !found || err != nil || !httpguts.ValidHeaderFieldName(key) || !httpguts.ValidHeaderFieldValue(value) {
			cfg.Problem(setting, "must be a list of headers such as name=value,name=value, with values in percent-encoding")
			break
		}
		h.Set(key, value)
	}
	return h
}

// transport returns a transport that trusts the certificate authorities of the file
// OTEL_EXPORTER_OTLP_CERTIFICATE also.
func transport(cfg *config.Config) http.RoundTripper {
	const name = "OTEL_EXPORTER_OTLP_CERTIFICATE"
	var pem []byte
	if path := cfg.Text(name, ""); path != "" {
		var err error
		if pem, err = os.ReadFile(path); err != nil || len(pem) == 0 {
			cfg.Problem(name, "names a file that cannot be read")
		}
	}
	t, err := tlsconfig.Transport(pem)
	if err != nil {
		cfg.Problem(name, "names a file without a certificate in PEM form")
	}
	return t
}

func start(cfg *config.Config, c client, name string) error {
	began := time.Now()
	of, err := resource.New(context.Background(), resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", name), attribute.String("service.instance.id", rand.Text())),
		resource.WithFromEnv())
	if err != nil {
		return err
	}
	setErrorHandler(cfg.Log())
	traces := trace.NewTracerProvider(trace.WithResource(of), trace.WithSpanProcessor(newBatcher(c.ExportSpans)))
	meters := metric.NewMeterProvider(metric.WithResource(of), metric.WithExemplarFilter(exemplar.AlwaysOffFilter), metric.WithReader(metric.NewPeriodicReader(metricClient{c}, metric.WithInterval(interval))))
	cfg.OnClose(func(ctx context.Context) error {
		both(ctx, traces.Shutdown, meters.Shutdown) // a collector that is down does not make the process fail
		return nil
	})
	return telemetry.Provide(cfg, telemetry.Providers{
		Traces: traces, Metrics: meters,
		Flush: func(ctx context.Context) { both(ctx, traces.ForceFlush, meters.ForceFlush) },
		Age:   func() time.Duration { return process.Age(began) },
	})
}

// both calls two functions at the same time, and reports their errors.
func both(ctx context.Context, a, b func(context.Context) error) {
	var group sync.WaitGroup
	for _, f := range []func(context.Context) error{a, b} {
		group.Go(func() {
			if err := f(ctx); err != nil {
				otel.Handle(err)
			}
		})
	}
	group.Wait()
}

// setErrorHandler logs the errors of the SDK, at most one in a minute: without a collector, each export
// fails. The SDK has one handler of errors in a process, and the default one writes lines that are no JSON.
func setErrorHandler(log *slog.Logger) {
	var mu sync.Mutex
	var last time.Time
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if last.IsZero() || time.Since(last) > time.Minute {
			last = time.Now()
			log.Warn("telemetry was not exported", "error", err)
		}
	}))
}
