// Package image holds the images to what is said of them: they are built here as ko
// builds them by .ko.yaml, twice, and looked into.
//
// It is all tests, in a module of its own, outside the workspace, for what ko requires
// must not end up in the functions. It takes minutes to compile, so "go test work"
// leaves it out and .ci/run does not. Another image stands in for the base: no test
// reaches a registry.
//
//	GOWORK=off go test -v ./...     in this folder
package image
