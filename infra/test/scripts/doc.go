// Package scripts runs the text scripts of this folder: readable conversations with the system.
// They are the same against the local runner and, with BASE_URL, against a cluster.
//
//	go test ./infra/test/scripts                                  the local runner
//	BASE_URL=http://… KUBECONFIG=… go test ./infra/test/scripts   a cluster
//	SCRIPT=errors.txt go test ./infra/test/scripts                one script
//
// HOST_HEADER is the value of the Host header if it differs from the host of BASE_URL.
// KINGRESS_URL is the address of the routes that a Knative Ingress adds to a cluster.
//
// The scripts in cluster/ test the system on a cluster and run one at a time. They break
// things. So they run only if the namespace of the system has the label for tests, as with the
// overlays e2e, which infra/cluster deploys, and local-e2e.
//
// The package has only tests. The file verbs_test.go lists the commands of the scripts.
package scripts
