package validate

import (
	"os"
	"regexp"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"knative.dev/pkg/observability/metrics"
	"knative.dev/pkg/observability/tracing"
	"knative.dev/serving/pkg/observability"
	"sigs.k8s.io/yaml"
)

const monitored = "production-monitoring"

// Knative's parser ignores a misspelled member, so each value is compared. The functions and Knative
// send to the port of the collector.
func TestMonitoring_KnativeSettings(t *testing.T) {
	written, err := os.ReadFile("../../knative/monitoring/config-observability.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var patch struct {
		Data map[string]string `json:"data"`
	}
	if err := yaml.UnmarshalStrict(written, &patch); err != nil {
		t.Fatal(err)
	}
	got, err := observability.NewFromMap(patch.Data)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := ""
	for _, s := range all[core.Service](t, monitored, "Service", "") {
		if s.Name == "collector" && s.Spec.Ports[0].Port == 4318 {
			endpoint = "http://" + s.Name + "." + s.Namespace + ":4318"
		}
	}
	want := metrics.Config{Protocol: metrics.ProtocolHTTPProtobuf, Endpoint: endpoint + "/v1/metrics", ExportInterval: 10 * time.Second}
	if got.RequestMetrics != want || got.Metrics != want {
		t.Errorf("got the metrics %+v and %+v, want %+v", got.RequestMetrics, got.Metrics, want)
	}
	// Knative's spans have client addresses and paths with IDs.
	if want := (tracing.Config{Protocol: tracing.ProtocolNone}); got.Tracing != want {
		t.Errorf("got the traces %+v, want %+v", got.Tracing, want)
	}
	for _, c := range all[core.ConfigMap](t, monitored, "ConfigMap", "") {
		if to, set := c.Data["OTEL_EXPORTER_OTLP_ENDPOINT"]; set && to == endpoint {
			return
		}
	}
	t.Errorf("the ConfigMap of the functions does not name %s", endpoint)
}

// The tests of ../monitoring run the collector of the image.
func TestMonitoring_ImageIsTested(t *testing.T) {
	pinned, err := os.ReadFile("../monitoring/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all[apps.Deployment](t, monitored, "Deployment", "apps") {
		if m := regexp.MustCompile(`^otel/opentelemetry-collector-contrib:(.+)$`).FindStringSubmatch(d.Spec.Template.Spec.Containers[0].Image); m != nil {
			for _, p := range regexp.MustCompile(`opentelemetry-collector-contrib/(\S+) v(\S+)`).FindAllSubmatch(pinned, -1) {
				if string(p[2]) != m[1] {
					t.Errorf("%s: got the version %s, want %s as the image", p[1], p[2], m[1])
				}
			}
			return
		}
	}
	t.Error("the overlay has no collector")
}
