// Package apierror defines the errors that clients receive: their kinds, their HTTP
// statuses and their only body format:
//
//	{"errors":[{"message":"…","field":"…"}]}
//
// An Error has public items and a private cause. The items are fixed sentences. They never
// contain the input, the text of a driver or a secret. Only the log receives the cause.
// Any other error becomes a 500 with a fixed text.
//
// Functions and shared packages return Errors, and package endpoint writes them. This
// package depends on HTTP only for the status numbers and header fields.
package apierror

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/reference"
)

// A Kind classifies an error by the possible reaction of the client.
type Kind uint8

// The kinds, in the order of their statuses.
const (
	Internal         Kind = iota // unexpected; the zero value on purpose
	Invalid                      // invalid input; the items name the fields
	Unauthenticated              // missing or invalid credentials
	Forbidden                    // authenticated, but not allowed
	NotFound                     // unknown path or resource
	MethodNotAllowed             // known path, but another method
	Conflict                     // the state of the resource does not allow the request
	Gone                         // the resource existed and no longer does
	Precondition                 // the resource has changed since the client read it
	TooLarge                     // the body exceeds its limit
	UnsupportedMedia             // unsupported media type or encoding of the body
	Mismatch                     // Idempotency-Key reused with another body
	TooMany                      // the client must wait
	Unavailable                  // all clients must wait
)

// statuses maps each kind to its HTTP status (RFC 9110 §15, RFC 6585).
var statuses = [...]int{
	Internal:         http.StatusInternalServerError,
	Invalid:          http.StatusBadRequest,
	Unauthenticated:  http.StatusUnauthorized,
	Forbidden:        http.StatusForbidden,
	NotFound:         http.StatusNotFound,
	MethodNotAllowed: http.StatusMethodNotAllowed,
	Conflict:         http.StatusConflict,
	Gone:             http.StatusGone,
	Precondition:     http.StatusPreconditionFailed,
	TooLarge:         http.StatusRequestEntityTooLarge,
	UnsupportedMedia: http.StatusUnsupportedMediaType,
	Mismatch:         http.StatusUnprocessableEntity,
	TooMany:          http.StatusTooManyRequests,
	Unavailable:      http.StatusServiceUnavailable,
}

// An Item is one public error message.
type Item struct {
	Message string `json:"message"`
	Field   string `json:"field,omitzero"` // the invalid member of the input, if any
}

// Members implements reference.Described.
func (Item) Members() []reference.Member {
	return []reference.Member{
		{Name: "message", About: "A sentence for people. It never contains the input."},
		{Name: "field", About: "The invalid member of the request body, if the error concerns one."},
	}
}

// Errors is the body of an error response, and the data of the event that refuses another.
type Errors struct {
	Errors []Item `json:"errors" min:"1"`
}

// An Error is an error response for the client. It is immutable.
type Error struct {
	kind    Kind
	items   []Item
	headers []Header
	cause   error
}

// A Header is a header field of the response.
type Header struct{ Name, Value string }

// New returns an Error with one public message.
func New(kind Kind, message string) *Error {
	return &Error{kind: kind, items: []Item{{Message: message}}}
}

// Field returns an Invalid error for one member of the input.
func Field(field, message string) *Error {
	return &Error{kind: Invalid, items: []Item{{Message: message, Field: field}}}
}

// Credentials returns the error for every failed sign-in. An unknown account must be
// indistinguishable from a wrong password (OWASP ASVS 5.0.0, 6.3.8). The cause may be nil.
func Credentials(cause error) *Error {
	e := New(Unauthenticated, "Email or password is wrong.")
	e.headers = []Header{{"WWW-Authenticate", "Bearer"}}
	e.cause = cause
	return e
}

// NoToken returns the error for a request without the required bearer token. It contains
// no error code (RFC 6750 §3.1).
func NoToken() *Error {
	e := New(Unauthenticated, "A bearer token is needed.")
	e.headers = []Header{{"WWW-Authenticate", "Bearer"}}
	return e
}

// InvalidToken returns the error for a malformed, forged, expired or revoked token (RFC
// 6750 §3.1). Only the log receives the cause.
func InvalidToken(cause error) *Error {
	e := New(Unauthenticated, "The token is not valid.")
	e.headers = []Header{{"WWW-Authenticate", `Bearer error="invalid_token"`}}
	e.cause = cause
	return e
}

// NoService returns the error for a request without the credentials of a registered service.
// Only the log receives the cause, which may be nil.
func NoService(cause error) *Error {
	e := New(Unauthenticated, "The credentials of a service are needed.")
	e.headers = []Header{{"WWW-Authenticate", `Basic realm="services"`}}
	e.cause = cause
	return e
}

// Reauthenticate returns the error for a valid token that does not prove enough: the user
// must sign in again, at the level acr if it is not empty, and at most maxAge ago if it is
// not 0 (RFC 9470 §3).
func Reauthenticate(acr string, maxAge time.Duration) *Error {
	e := New(Unauthenticated, "You must sign in again for this.")
	challenge := `Bearer error="insufficient_user_authentication"`
	if acr != "" {
		challenge += fmt.Sprintf(", acr_values=%q", acr)
	}
	if maxAge > 0 {
		challenge += fmt.Sprintf(", max_age=%q", strconv.Itoa(int(maxAge.Seconds())))
	}
	e.headers = []Header{{"WWW-Authenticate", challenge}}
	return e
}

// Method returns the error for a method that the path does not support.
func Method(allow string) *Error {
	e := New(MethodNotAllowed, "This method is not allowed here.")
	e.headers = []Header{{"Allow", allow}}
	return e
}

// Encoded returns the error for a body with a content coding, such as gzip (RFC 9110
// §15.5.16).
func Encoded() *Error {
	e := New(UnsupportedMedia, "The body must have no Content-Encoding.")
	e.headers = []Header{{"Accept-Encoding", "identity"}}
	return e
}

// Retry returns a TooMany or Unavailable error with a Retry-After header. The header
// contains whole seconds, at least one (RFC 9110 §10.2.3).
func Retry(kind Kind, after time.Duration, message string, cause error) *Error {
	e := New(kind, message)
	e.headers = []Header{{"Retry-After", seconds(after)}}
	e.cause = cause
	return e
}

// Limited returns a TooMany error for a client that has reached a rate limit. The policy
// allows quota requests per window, and the current window ends after the given duration.
// The headers follow draft-ietf-httpapi-ratelimit-headers-10.
func Limited(policy string, quota int, window, after time.Duration) *Error {
	e := Retry(TooMany, after, "Too many requests. Try again later.", nil)
	e.headers = append(e.headers,
		Header{"RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%s", policy, quota, seconds(window))},
		Header{"RateLimit", fmt.Sprintf("%q;r=0;t=%s", policy, seconds(after))})
	return e
}

func seconds(d time.Duration) string { return strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))) }

// Busy returns an Unavailable error for an overloaded process.
func Busy(after time.Duration, cause error) *Error {
	return Retry(Unavailable, after, "The service is busy. Try again shortly.", cause)
}

// Unreachable returns an Unavailable error for a dependency that does not respond, such as
// the database.
func Unreachable(cause error) *Error {
	return Retry(Unavailable, time.Second, "The service is unavailable. Try again shortly.", cause)
}

// From returns the Error that err is or wraps. For any other error it returns an Internal
// Error with err as its cause.
func From(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := New(Internal, "Something went wrong.")
	e.cause = err
	return e
}

// Error returns the first message and the cause, for the log.
func (e *Error) Error() string {
	s := e.items[0].Message
	if e.cause != nil {
		return fmt.Sprintf("%s (%v)", s, e.cause)
	}
	return s
}

// Unwrap returns the private cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Kind returns the kind.
func (e *Error) Kind() Kind { return e.kind }

// Items returns the public messages.
func (e *Error) Items() []Item { return e.items }

// Status returns the HTTP status.
func (e *Error) Status() int { return statuses[e.kind] }

// Headers returns the header fields of the response.
func (e *Error) Headers() []Header { return e.headers }

// Body returns the JSON document.
func (e *Error) Body() []byte {
	// Marshal cannot fail: all messages are constants in valid UTF-8.
	b, err := json.Marshal(Errors{e.items})
	if err != nil {
		panic(err)
	}
	return b
}

// Fields collects the errors of an input, at most one per field and maxFields in all. The client
// thus receives all of them in one response, unless it sends very many.
type Fields struct{ items []Item }

// maxFields bounds the work and the response for an array of invalid items.
const maxFields = 100

// Add adds an error for a field, unless the field already has one.
func (f *Fields) Add(field, message string) {
	if len(f.items) < maxFields && !f.Has(field) {
		f.items = append(f.items, Item{Message: message, Field: field})
	}
}

// Has reports whether a field has an error.
func (f *Fields) Has(field string) bool {
	for _, i := range f.items {
		if i.Field == field {
			return true
		}
	}
	return false
}

// Append adds the errors of another input.
func (f *Fields) Append(more Fields) {
	for _, i := range more.items {
		f.Add(i.Field, i.Message)
	}
}

// Len returns the number of errors.
func (f *Fields) Len() int { return len(f.items) }

// Err returns an Invalid error with all items, or nil if there are none.
func (f *Fields) Err() error {
	if len(f.items) == 0 {
		return nil
	}
	return &Error{kind: Invalid, items: f.items}
}
