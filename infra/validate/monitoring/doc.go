// Package monitoring runs the collector, the rules and the dashboard of infra/knative/monitoring. Metrics
// come from the code that sends them in a cluster: shared/telemetry and Knative's queue-proxy. The real
// collector receives them with the configuration that a cluster has, and the real Prometheus scrapes it.
//
// The package has tests only. Its module is outside the workspace, because its dependencies
// must not choose the versions of the functions' dependencies. It is not in infra/validate, because a
// collector and Prometheus would double the time to build that module.
package monitoring
