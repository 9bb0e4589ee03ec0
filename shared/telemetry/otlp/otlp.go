// Package otlp exports the spans and the metrics of a process to an OpenTelemetry collector, by OTLP
// over HTTP.
package otlp

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/telemetry"
)

// interval is the time between two exports of the metrics.
const interval = 10 * time.Second

// Start starts the export if OTEL_EXPORTER_OTLP_ENDPOINT is set. Otherwise it does nothing. process is
// the name of the service, unless OTEL_SERVICE_NAME is set. cfg.Close exports what is left.
//
// The SDK itself reads the other OTEL_ variables that the specification of OpenTelemetry defines.
func Start(cfg *config.Config, process string) {
	endpoint := strings.TrimSuffix(cfg.Text("OTEL_EXPORTER_OTLP_ENDPOINT", ""), "/")
	if endpoint == "" {
		return
	}
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery+u.Fragment != "" || u.User != nil {
		cfg.Problem("OTEL_EXPORTER_OTLP_ENDPOINT", "must be the URL of a collector without credentials, such as http://collector:4318")
		return
	}
	if err := start(cfg, endpoint, process); err != nil {
		cfg.Problem("OTEL_EXPORTER_OTLP_ENDPOINT", "is set, but the export cannot start: check the other OTEL_ variables")
	}
}

func start(cfg *config.Config, endpoint, process string) error {
	ctx, began := context.Background(), time.Now()
	of, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", process), attribute.String("service.instance.id", rand.Text())),
		resource.WithFromEnv())
	if err != nil {
		return err
	}
	spans, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint+"/v1/traces"))
	if err != nil {
		return err
	}
	// A process can end after a minute. Sums since its start would leave one series for each
	// process, with a few values.
	metrics, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(endpoint+"/v1/metrics"),
		otlpmetrichttp.WithTemporalitySelector(func(metric.InstrumentKind) metricdata.Temporality { return metricdata.DeltaTemporality }))
	if err != nil {
		return err
	}
	report(cfg.Log())
	traces := trace.NewTracerProvider(trace.WithResource(of), trace.WithBatcher(spans))
	meters := metric.NewMeterProvider(metric.WithResource(of), metric.WithReader(metric.NewPeriodicReader(metrics, metric.WithInterval(interval))))
	cfg.OnClose(func(ctx context.Context) error {
		both(ctx, traces.Shutdown, meters.Shutdown) // a collector that is down does not make the process fail
		return nil
	})
	return telemetry.Provide(cfg, telemetry.Providers{
		Traces: traces, Metrics: meters,
		Flush: func(ctx context.Context) { both(ctx, traces.ForceFlush, meters.ForceFlush) },
		Age:   func() time.Duration { return age(began) },
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

// report logs the errors of the SDK. The SDK has one handler of errors in a process, and the default
// one writes lines that are no JSON.
func report(log *slog.Logger) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn("telemetry was not exported", "error", err)
	}))
}
