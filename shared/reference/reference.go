// Package reference describes JSON members for the API reference, the OpenAPI document. It
// covers details that a Go type cannot express: limits, formats and a sentence. The
// description stands beside the type and uses the constants of its code.
//
// A type has a method for it, and no function calls the method at run time. It adds ten
// kilobytes to a binary of twenty megabytes, and no work at startup. It validates nothing:
// Validate does.
package reference

// A Member describes a JSON member. A zero field adds nothing to the description.
type Member struct {
	Name  string // as in JSON
	About string // a sentence or two

	Format               string // the format of JSON Schema, an annotation
	MinLength, MaxLength int    // in characters
	Minimum              int

	Opaque bool // the client sends it back unchanged and does not interpret it
	Secret bool // no response contains it, and the reference omits it
}

// Described is implemented by a struct of JSON members, or a pointer to it.
type Described interface{ Members() []Member }
