// Package validate holds the reference of the API to what judges it: the document is
// linted, against the schema of OpenAPI 3.1 and the rules of this house, and every
// example in it is sent to the running system, whose answers must be the documented
// ones.
//
// It is all tests, in a module of its own, outside the workspace: what it requires
// must not end up in the functions. "go test work" runs it from infra/arch.
package validate
