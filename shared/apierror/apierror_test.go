package apierror_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/apierror"
)

func TestFrom(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.7:27017: refused")
	for _, c := range []struct {
		name        string
		err         error
		status      int
		header      string
		value, body string
	}{
		{"an untyped error is a 500 with a fixed text", cause, 500, "", "", `{"errors":[{"message":"Something went wrong."}]}`},
		{"a wrapped API error is found", fmt.Errorf("sign up: %w", apierror.Field("email", "Taken.")), 400, "", "", `{"errors":[{"message":"Taken.","field":"email"}]}`},
		{"an invalid token", apierror.InvalidToken(cause), 401, "WWW-Authenticate", `Bearer error="invalid_token"`, `{"errors":[{"message":"The token is not valid."}]}`},
		{"no token", apierror.NoToken(), 401, "WWW-Authenticate", "Bearer", `{"errors":[{"message":"A bearer token is needed."}]}`},
		{"wrong credentials", apierror.Credentials(nil), 401, "WWW-Authenticate", "Bearer", `{"errors":[{"message":"Email or password is wrong."}]}`},
		{"another method", apierror.Method("GET, HEAD"), 405, "Allow", "GET, HEAD", `{"errors":[{"message":"This method is not allowed here."}]}`},
		{"busy for less than a second says one second", apierror.Busy(time.Millisecond, cause), 503, "Retry-After", "1", `{"errors":[{"message":"The service is busy. Try again shortly."}]}`},
		{"a wait is rounded up", apierror.Retry(apierror.TooMany, 1500*time.Millisecond, "Wait.", nil), 429, "Retry-After", "2", `{"errors":[{"message":"Wait."}]}`},
		{"a client over its rate limit", apierror.Limited("signin", 100, 5*time.Minute, 90500*time.Millisecond), 429, "Retry-After RateLimit-Policy RateLimit", `91 "signin";q=100;w=300 "signin";r=0;t=91`, `{"errors":[{"message":"Too many requests. Try again later."}]}`},
		{"an unreachable dependency", apierror.Unreachable(cause), 503, "Retry-After", "1", `{"errors":[{"message":"The service is unavailable. Try again shortly."}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := apierror.From(c.err)
			var names, values []string
			for _, h := range e.Headers() {
				names, values = append(names, h.Name), append(values, h.Value)
			}
			name, value := strings.Join(names, " "), strings.Join(values, " ")
			if e.Status() != c.status || name != c.header || value != c.value || string(e.Body()) != c.body {
				t.Errorf("got %d %s: %q %s\nwant %d %s: %q %s", e.Status(), name, value, e.Body(), c.status, c.header, c.value, c.body)
			}
		})
	}
	if !errors.Is(apierror.From(cause), cause) || !errors.Is(apierror.Unreachable(cause), cause) {
		t.Error("errors.Is does not find the cause")
	}
}

func TestFields_OneErrorPerField(t *testing.T) {
	var f apierror.Fields
	if err := f.Err(); err != nil {
		t.Fatalf("no fields: got %v, want nil", err)
	}
	f.Add("email", "Bad.")
	f.Add("email", "Worse.")
	f.Add("password", "Short.")
	want := `{"errors":[{"message":"Bad.","field":"email"},{"message":"Short.","field":"password"}]}`
	if got := string(apierror.From(f.Err()).Body()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
