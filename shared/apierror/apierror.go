// Package fault is the one vocabulary of failure: what can go wrong, which
// status it has, and the only writer of the body
//
//	{"errors":[{"message":"…","field":"…"}]}
//
// A fault has two sides. Its items are public: fixed sentences that never carry
// the input, a driver's text or a secret. Its cause is private: it goes to the
// log and nowhere else. An error that is no fault is a 500 with a fixed text.
//
// Functions and the packages they share return faults; package endpoint renders
// them. Nothing here knows of HTTP but the numbers.
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

// A Kind is what went wrong, as far as a caller can act on it.
type Kind uint8

// The kinds, in the order of their statuses.
const (
	Internal         Kind = iota // nobody foresaw it; the zero value on purpose
	Invalid                      // the input is wrong; the items say where
	Unauthenticated              // no credentials that count
	Forbidden                    // known, and not allowed
	NotFound                     // no such path
	MethodNotAllowed             // the path exists, the method does not
	TooLarge                     // the body is over its limit
	UnsupportedMedia             // the body is in a form nobody reads here
	Mismatch                     // an Idempotency-Key used again with another body
	TooMany                      // this caller must wait
	Unavailable                  // everybody must wait
)

// statuses is the one table from kind to HTTP status (RFC 9110 §15, RFC 6585).
var statuses = [...]int{
	Internal:         http.StatusInternalServerError,
	Invalid:          http.StatusBadRequest,
	Unauthenticated:  http.StatusUnauthorized,
	Forbidden:        http.StatusForbidden,
	NotFound:         http.StatusNotFound,
	MethodNotAllowed: http.StatusMethodNotAllowed,
	TooLarge:         http.StatusRequestEntityTooLarge,
	UnsupportedMedia: http.StatusUnsupportedMediaType,
	Mismatch:         http.StatusUnprocessableEntity,
	TooMany:          http.StatusTooManyRequests,
	Unavailable:      http.StatusServiceUnavailable,
}

// An Item is one thing that is wrong, told to the caller.
type Item struct {
	Message string `json:"message"`
	Field   string `json:"field,omitzero"` // the member of the input it is about
}

// Members implements reference.Described.
func (Item) Members() []reference.Member {
	return []reference.Member{
		{Name: "message", About: "A sentence for people. It never carries the input."},
		{Name: "field", About: "The member of the request that it is about, if it is about one."},
	}
}

// An Error is a fault on its way to the caller. It is immutable.
type Error struct {
	kind    Kind
	items   []Item
	headers []Header // that belong to the kind
	cause   error
}

// A Header is a line that goes with the answer.
type Header struct{ Name, Value string }

// New returns a fault of a kind with one public sentence.
func New(kind Kind, message string) *Error {
	return &Error{kind: kind, items: []Item{{Message: message}}}
}

// Field returns an Invalid fault about one member of the input.
func Field(field, message string) *Error {
	return &Error{kind: Invalid, items: []Item{{Message: message, Field: field}}}
}

// Credentials is the answer to a sign-in that fails, whatever the reason: an
// unknown account must be indistinguishable from a wrong password (OWASP ASVS
// 5.0.0, 6.3.8). The cause, if there is one, is for the log.
func Credentials(cause error) *Error {
	e := New(Unauthenticated, "Email or password is wrong.")
	e.headers = []Header{{"WWW-Authenticate", "Bearer"}}
	e.cause = cause
	return e
}

// NoToken is the answer where a bearer token is needed and none was sent. It
// names no error code (RFC 6750 §3.1).
func NoToken() *Error {
	e := New(Unauthenticated, "A bearer token is needed.")
	e.headers = []Header{{"WWW-Authenticate", "Bearer"}}
	return e
}

// InvalidToken is the answer to a token that does not count: malformed, forged,
// expired or ended (RFC 6750 §3.1). Which of them is for the log alone.
func InvalidToken(cause error) *Error {
	e := New(Unauthenticated, "The token is not valid.")
	e.headers = []Header{{"WWW-Authenticate", `Bearer error="invalid_token"`}}
	e.cause = cause
	return e
}

// Method is the answer to a method that a path does not have.
func Method(allow string) *Error {
	e := New(MethodNotAllowed, "This method is not allowed here.")
	e.headers = []Header{{"Allow", allow}}
	return e
}

// Encoded is the answer to a body with a content coding, such as gzip (RFC 9110
// §15.5.16).
func Encoded() *Error {
	e := New(UnsupportedMedia, "The body must have no Content-Encoding.")
	e.headers = []Header{{"Accept-Encoding", "identity"}}
	return e
}

// Retry returns a fault of kind TooMany or Unavailable that asks the caller to
// come back after a while; it is told whole seconds, at least one (RFC 9110
// §10.2.3).
func Retry(kind Kind, after time.Duration, message string, cause error) *Error {
	e := New(kind, message)
	e.headers = []Header{{"Retry-After", seconds(after)}}
	e.cause = cause
	return e
}

// Limited is TooMany for a caller who has used up what a policy grants: so many
// requests in a window, which is over after a while. It says so in the fields of
// draft-ietf-httpapi-ratelimit-headers-10 as well.
func Limited(policy string, quota int, window, after time.Duration) *Error {
	e := Retry(TooMany, after, "Too many requests. Try again later.", nil)
	e.headers = append(e.headers,
		Header{"RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%s", policy, quota, seconds(window))},
		Header{"RateLimit", fmt.Sprintf("%q;r=0;t=%s", policy, seconds(after))})
	return e
}

func seconds(d time.Duration) string { return strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))) }

// Busy is Unavailable because there is more work than this instance can do.
func Busy(after time.Duration, cause error) *Error {
	return Retry(Unavailable, after, "The service is busy. Try again shortly.", cause)
}

// Unreachable is Unavailable because something this instance needs does not answer.
func Unreachable(cause error) *Error {
	return Retry(Unavailable, time.Second, "The service is unavailable. Try again shortly.", cause)
}

// From makes a fault of any error: a fault stays what it is, all else becomes
// Internal with the error as its cause.
func From(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := New(Internal, "Something went wrong.")
	e.cause = err
	return e
}

// Error tells the log what happened.
func (e *Error) Error() string {
	s := e.items[0].Message
	if e.cause != nil {
		return fmt.Sprintf("%s (%v)", s, e.cause)
	}
	return s
}

// Unwrap returns the private cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Kind returns what went wrong.
func (e *Error) Kind() Kind { return e.kind }

// Items returns what the caller is told.
func (e *Error) Items() []Item { return e.items }

// Status returns the HTTP status.
func (e *Error) Status() int { return statuses[e.kind] }

// Headers returns what goes with the answer.
func (e *Error) Headers() []Header { return e.headers }

// Body returns the JSON document.
func (e *Error) Body() []byte {
	// Items are valid UTF-8 written by us: marshalling cannot fail.
	b, err := json.Marshal(struct {
		Errors []Item `json:"errors"`
	}{e.items})
	if err != nil {
		panic(err)
	}
	return b
}

// Fields collects what is wrong with an input, at most one item a field, so that
// a caller learns of all faults at once.
type Fields struct{ items []Item }

// Add notes a fault of a field, unless the field already has one.
func (f *Fields) Add(field, message string) {
	if !f.Has(field) {
		f.items = append(f.items, Item{Message: message, Field: field})
	}
}

// Has tells whether a field already has a fault.
func (f *Fields) Has(field string) bool {
	for _, i := range f.items {
		if i.Field == field {
			return true
		}
	}
	return false
}

// Err returns an Invalid fault that lists every item, or nil if there is none.
func (f *Fields) Err() error {
	if len(f.items) == 0 {
		return nil
	}
	return &Error{kind: Invalid, items: f.items}
}
