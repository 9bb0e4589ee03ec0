// Package image checks the container images: ko builds each image twice by .ko.yaml, and
// the tests inspect the result. An image of the tests replaces the base image, so that no
// test needs a registry.
//
// The package has tests only. Its module is outside the workspace, because its dependencies
// must not choose the versions of the functions' dependencies.
package image
