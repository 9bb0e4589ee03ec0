// Package validate checks the event reference: the AsyncAPI document with the official schema
// of AsyncAPI 3.0 and the rules of this project, and the schemas of the events with the
// meta-schema of JSON Schema 2020-12.
//
// The package has tests only. Its module is outside the workspace, because its dependencies
// must not choose the versions of the functions' dependencies.
package validate
