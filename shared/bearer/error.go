package bearer

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// An Error is the refusal of a request, in the error format of the platform. Its ServeHTTP writes
// it as the response. Its message is public. Unwrap returns the cause, for the log only.
type Error struct {
	Status     int           // 401, 403 or 503
	Message    string        // a fixed sentence, without input of the client
	Challenge  string        // of the header WWW-Authenticate, or ""
	RetryAfter time.Duration // of the header Retry-After, or 0
	cause      error
}

// ErrNoToken is the error for a request without a bearer token. It has no error code (RFC 6750
// section 3.1).
var ErrNoToken error = &Error{Status: http.StatusUnauthorized, Message: "A bearer token is needed.", Challenge: "Bearer"}

var errRevoked = errors.New("the session has ended")

func invalidToken(cause error) error {
	return &Error{Status: http.StatusUnauthorized, Message: "The token is not valid.", Challenge: `Bearer error="invalid_token"`, cause: cause}
}

func forbidden() error {
	return &Error{Status: http.StatusForbidden, Message: "You are not allowed to do this.", Challenge: `Bearer error="insufficient_scope"`}
}

func reauthenticate(acr string, maxAge time.Duration) error {
	challenge := `Bearer error="insufficient_user_authentication"`
	if acr != "" {
		challenge += fmt.Sprintf(", acr_values=%q", acr)
	}
	if maxAge > 0 {
		challenge += fmt.Sprintf(", max_age=%q", strconv.Itoa(int(maxAge.Seconds())))
	}
	return &Error{Status: http.StatusUnauthorized, Message: "You must sign in again for this.", Challenge: challenge}
}

func unavailable(cause error) error {
	return &Error{Status: http.StatusServiceUnavailable, Message: "The service is unavailable. Try again shortly.", RetryAfter: retryDelay, cause: cause}
}

// Error returns the message and the cause. Neither contains a part of the token.
func (e *Error) Error() string {
	if e.cause != nil {
		return e.Message + " (" + e.cause.Error() + ")"
	}
	return e.Message
}

// Unwrap returns the cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

// ServeHTTP writes the error as the response.
func (e *Error) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	type item struct {
		Message string `json:"message"`
	}
	body, err := json.Marshal(map[string][]item{"errors": {{e.Message}}})
	if err != nil {
		panic(err) // an invalid Message of the program
	}
	h := w.Header()
	if e.Challenge != "" {
		h.Set("WWW-Authenticate", e.Challenge)
	}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(e.Status)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}
