package monitoring

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/exporter/prometheusexporter"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/cumulativetodeltaprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/deltatocumulativeprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/filterprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/transformprocessor"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/nopexporter"
	"go.opentelemetry.io/collector/exporter/otlphttpexporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/batchprocessor"
	"go.opentelemetry.io/collector/processor/memorylimiterprocessor"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
)

const folder = "../../knative/monitoring/"

// A collector is the real one, in this process.
type collector struct{ otlp, scraped string } // addresses

// startCollector starts the collector with the configuration of the component. Only the addresses differ, and
// a batch does not wait for more data.
func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{otlp: freeAddress(t), scraped: freeAddress(t)}
	for name, value := range map[string]string{"NAMESPACE": "ticketing", "TRACES_EXPORTER": "nop", "TRACES_ENDPOINT": "http://tempo.observability:4318"} {
		if os.Getenv(name) == "" {
			t.Setenv(name, value)
		}
	}
	run, err := otelcol.NewCollector(otelcol.CollectorSettings{
		Factories:               factories,
		BuildInfo:               component.NewDefaultBuildInfo(),
		DisableGracefulShutdown: true,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
			URIs: []string{"file:" + folder + "config.yaml",
				"yaml:receivers::otlp::protocols::http::endpoint: " + c.otlp,
				"yaml:exporters::prometheus::endpoint: " + c.scraped,
				"yaml:processors::batch::timeout: 0s",
				"yaml:service::telemetry::logs::level: warn"},
			ProviderFactories: []confmap.ProviderFactory{fileprovider.NewFactory(), envprovider.NewFactory(), yamlprovider.NewFactory()},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- run.Run(context.Background()) }()
	t.Cleanup(func() {
		run.Shutdown()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for run.GetState() != otelcol.StateRunning {
		select {
		case err := <-done:
			done <- err
			t.Fatalf("the collector does not run: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return c
}

// factories returns the components that config.yaml uses. The image of the component has them all.
func factories() (otelcol.Factories, error) {
	f := otelcol.Factories{Telemetry: otelconftelemetry.NewFactory()}
	var err, err2, err3 error
	f.Receivers, err = otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory())
	f.Processors, err2 = otelcol.MakeFactoryMap[processor.Factory](memorylimiterprocessor.NewFactory(), filterprocessor.NewFactory(),
		cumulativetodeltaprocessor.NewFactory(), batchprocessor.NewFactory(), transformprocessor.NewFactory(), deltatocumulativeprocessor.NewFactory())
	f.Exporters, err3 = otelcol.MakeFactoryMap[exporter.Factory](prometheusexporter.NewFactory(), otlphttpexporter.NewFactory(), nopexporter.NewFactory())
	if err == nil && err2 == nil {
		err = err3
	}
	return f, err
}

// freeAddress returns an address of the loopback interface at which no process listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// scrape returns the metrics as Prometheus gets them.
func (c *collector) scrape(t *testing.T) string {
	t.Helper()
	return get(t, "http://"+c.scraped+"/metrics")
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: got %s %s and the error %v, want 200", url, r.Status, body, err)
	}
	return string(body)
}

// eventually waits until f returns true. It fails the test after a minute.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(fmt.Sprint("not within a minute: ", what))
		}
	}
}
