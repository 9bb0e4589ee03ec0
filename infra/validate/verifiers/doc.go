// Package validate checks that Go libraries verify the access tokens, with the code of
// infra/docs/verify-tokens-go.md.
//
// The package has tests only. Its module is outside the workspace, because its dependencies
// must not choose the versions of the functions' dependencies.
package validate
