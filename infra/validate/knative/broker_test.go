package validate

import (
	"strconv"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	eventing "knative.dev/eventing/pkg/apis/eventing/v1"
	"sigs.k8s.io/yaml"
)

// rabbitmqBrokerConfig has the members of eventing.knative.dev/v1alpha1 RabbitmqBrokerConfig. It is
// a copy, because the module of that type is not a dependency. The members are those of version
// 1.19 of the Knative RabbitMQ Broker.
type rabbitmqBrokerConfig struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		RabbitmqClusterReference *struct {
			Name             string                     `json:"name"`
			Namespace        string                     `json:"namespace,omitempty"`
			ConnectionSecret *core.LocalObjectReference `json:"connectionSecret,omitempty"`
		} `json:"rabbitmqClusterReference,omitempty"`
		QueueType string `json:"queueType"`
		VHost     string `json:"vhost,omitempty"`
	} `json:"spec"`
}

// Each overlay with a broker that stores events has a Broker of its class, and the configuration
// that the Broker refers to.
func TestOverlays_DurableBroker(t *testing.T) {
	for overlay, class := range map[string]string{"production-kafka": "Kafka", "production-rabbitmq": "RabbitMQBroker"} {
		t.Run(overlay, func(t *testing.T) {
			all := built(t, overlay).Resources()
			var brokers []eventing.Broker
			documents := map[string]string{}
			for _, r := range all {
				documents[r.GetApiVersion()+" "+r.GetKind()+" "+r.GetNamespace()+"/"+r.GetName()] = r.MustYaml()
				if r.GetKind() == "Broker" {
					var b eventing.Broker
					if err := yaml.UnmarshalStrict([]byte(r.MustYaml()), &b); err != nil {
						t.Fatal(err)
					}
					brokers = append(brokers, b)
				}
			}
			if len(brokers) != 1 || brokers[0].Annotations[eventing.BrokerClassAnnotationKey] != class || brokers[0].Spec.Config == nil {
				t.Fatalf("got the brokers %+v, want one of the class %s with a configuration", brokers, class)
			}
			to := brokers[0].Spec.Config
			document := documents[to.APIVersion+" "+to.Kind+" "+to.Namespace+"/"+to.Name]
			if document == "" {
				t.Fatalf("the overlay does not have the %s %s/%s", to.Kind, to.Namespace, to.Name)
			}
			checkDurable(t, to.Kind, document)
		})
	}
}

// checkDurable fails the test unless a configuration stores each event on several machines.
func checkDurable(t *testing.T, kind, document string) {
	t.Helper()
	switch kind {
	case "ConfigMap":
		var c core.ConfigMap
		if err := yaml.UnmarshalStrict([]byte(document), &c); err != nil {
			t.Fatal(err)
		}
		partitions, _ := strconv.Atoi(c.Data["default.topic.partitions"])
		replicas, _ := strconv.Atoi(c.Data["default.topic.replication.factor"])
		if partitions < 1 || replicas < 3 || !strings.Contains(c.Data["bootstrap.servers"], ":") {
			t.Errorf("got the configuration %v, want an address, a partition and 3 replicas", c.Data)
		}
	case "RabbitmqBrokerConfig":
		var c rabbitmqBrokerConfig
		if err := yaml.UnmarshalStrict([]byte(document), &c); err != nil {
			t.Fatal(err)
		}
		if cluster := c.Spec.RabbitmqClusterReference; cluster == nil || cluster.Name == "" || c.Spec.QueueType != "quorum" {
			t.Errorf("got the configuration %+v, want a cluster and quorum queues", c.Spec)
		}
	default:
		t.Errorf("got a configuration of the kind %s, want a known one", kind)
	}
}
