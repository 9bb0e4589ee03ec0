// Package validate holds the manifests to what would judge them in a cluster: they
// are built by kustomize as "kubectl apply -k" builds them, read strictly, defaulted
// and validated by the types of Knative's own webhooks, judged by Pod Security's own
// "restricted", and the routes are translated for Envoy by Kourier's own translator.
//
// It is all tests, in a module of its own, outside the workspace: what it requires
// must not end up in the functions. "go test work" runs it from infra/arch.
package validate
