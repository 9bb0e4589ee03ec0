// Package validate checks the manifests with the code that a cluster uses. kustomize builds
// them as "kubectl apply -k" does. The types of Knative's webhooks decode, default and
// validate them. The pod security level "restricted" checks the pods. Kourier's translator
// translates the routes for Envoy.
//
// The package has tests only. Its module is outside the workspace, because its dependencies
// must not choose the versions of the functions' dependencies.
package validate
