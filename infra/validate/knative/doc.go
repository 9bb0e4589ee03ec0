// Package validate checks the manifests with the code that judges them in a cluster:
// kustomize builds them as "kubectl apply -k" does, the types of Knative's webhooks decode,
// default and validate them, Pod Security's "restricted" profile checks the pods, and
// Kourier's translator translates the routes for Envoy.
//
// The package has tests only. Its module is outside the workspace, because its dependencies
// must not choose the versions of the functions' dependencies.
package validate
