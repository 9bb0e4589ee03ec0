// Package scripts plays the texts of this folder: conversations with the system that
// anyone can read, the same against the local runner and, by BASE_URL, against a
// cluster.
//
//	go test ./infra/test/scripts                                  the local runner
//	BASE_URL=http://… KUBECONFIG=… go test ./infra/test/scripts   a cluster
//	SCRIPT=errors.txt go test ./infra/test/scripts                one text
//
// HOST_HEADER is the host that is asked for, where that is not BASE_URL's own;
// KINGRESS_URL is where a cluster has the routes in a second form, by a Knative Ingress.
//
// The texts in cluster/ are of what only a cluster can do, and are played one at a time.
// They break things, so they are played only where the system's namespace is labelled as
// being for that: by the overlays e2e, which infra/cluster brings up, and local-e2e.
//
// It is all tests. What a script may say is listed in verbs_test.go.
package scripts
