// Package reference is how a type tells the reference of the API, the OpenAPI
// document, what its Go types cannot say of its JSON members: limits, formats, a
// sentence. It is told beside the type, with the constants that the code itself goes
// by.
//
// It is told by a method, which nothing in a function calls: ten kilobytes of a binary
// of twenty megabytes, and no work at a start. It decides nothing; what is refused is
// decided by Validate.
package reference

// A Member is what is known of a JSON member beyond its type. Every zero says nothing.
type Member struct {
	Name  string // as in JSON
	About string // a sentence or two

	Format               string // of JSON Schema; a hint, as everywhere in it
	MinLength, MaxLength int    // in characters
	Minimum              int

	Opaque bool // a caller hands it back as it is, and reads nothing into it
	Secret bool // it is in no answer, and so not described
}

// Described is a struct of JSON members, or a pointer to one, that has more to say.
type Described interface{ Members() []Member }
