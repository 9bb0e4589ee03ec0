package endpoint

import (
	"mime"
	"net/http"
	"reflect"
)

// Located is an output with a Location header: the address of a resource that was created
// (201), or of a resource that reports the progress (202).
type Located[T any] struct {
	Location string
	Body     T
}

// Header returns the header Location.
func (l Located[T]) Header() http.Header { return http.Header{"Location": {l.Location}} }

func (l Located[T]) content() any { return l.Body }

func (Located[T]) contentType() reflect.Type { return reflect.TypeFor[T]() }

// Content returns the type of the body of an output type, and reports whether the response
// has a Location header.
func Content(out reflect.Type) (body reflect.Type, located bool) {
	if l, ok := reflect.Zero(out).Interface().(interface{ contentType() reflect.Type }); ok {
		return l.contentType(), true
	}
	return out, out == reflect.TypeFor[Redirect]()
}

// A Redirect is the output of an endpoint with the status 303: the client continues with a
// GET request to Location. It has no body.
type Redirect struct{ Location string }

// Header returns the header Location.
func (r Redirect) Header() http.Header { return http.Header{"Location": {r.Location}} }

// A File is an output that a browser stores as a file.
type File struct {
	Name    string // proposed to the user, without a folder
	Type    string // the media type
	Content []byte
}

// Header returns the headers of a download (RFC 6266).
func (f File) Header() http.Header {
	return http.Header{
		"Content-Type":        {f.Type},
		"Content-Disposition": {mime.FormatMediaType("attachment", map[string]string{"filename": f.Name})},
	}
}
