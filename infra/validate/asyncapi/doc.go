// Package validate checks the API reference. It lints the document against the schema of
// OpenAPI 3.1 and the rules of this project. It then sends every example to the running
// system and compares the responses with the documented ones.
//
// The package has tests only. Its module is outside the workspace, because its dependencies
// must not choose the versions of the functions' dependencies.
package validate
