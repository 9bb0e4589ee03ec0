package endpointtest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"

	"ticketing.com/auth/shared/httpserver"
)

// A transport sends a call to a function and returns the response.
type transport func(context.Context, Call) (Answer, error)

// client has as many idle connections as Race needs in the tests.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}

// overHTTP returns the transport for an HTTP server. Like a proxy in front of a function, it
// appends the address of the client to X-Forwarded-For.
func overHTTP(url string) transport {
	return func(ctx context.Context, c Call) (Answer, error) {
		var body io.Reader
		if c.Body != "" {
			body = strings.NewReader(c.Body)
		}
		r, err := http.NewRequestWithContext(ctx, c.Method, url+c.Path, body)
		if err != nil {
			return Answer{}, err
		}
		r.Header = c.Header
		r.Header.Set("X-Forwarded-For", strings.Join(append(c.Header.Values("X-Forwarded-For"), c.From), ", "))
		response, err := client.Do(r)
		if err != nil {
			return Answer{}, err
		}
		defer response.Body.Close()
		read, err := io.ReadAll(response.Body)
		return Answer{response.StatusCode, response.Header, string(read)}, err
	}
}

// overLambda returns the transport for the Lambda handler. It converts requests and responses
// as API Gateway does.
func overLambda(handler http.Handler) transport {
	function := httpserver.Lambda(handler)
	return func(ctx context.Context, c Call) (Answer, error) {
		path, query, _ := strings.Cut(c.Path, "?")
		e := events.APIGatewayV2HTTPRequest{Version: "2.0", RawPath: path, RawQueryString: query, Headers: map[string]string{}, Body: c.Body}
		e.RequestContext.HTTP.Method = c.Method
		e.RequestContext.HTTP.SourceIP = c.From
		for name, values := range c.Header {
			if name == "Cookie" {
				e.Cookies = values
				continue
			}
			e.Headers[strings.ToLower(name)] = strings.Join(values, ",")
		}
		if !utf8.ValidString(c.Body) {
			e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString([]byte(c.Body)), true
		}
		payload, err := json.Marshal(e)
		if err != nil {
			return Answer{}, err
		}
		if payload, err = function.Invoke(ctx, payload); err != nil {
			return Answer{}, err
		}
		var r events.APIGatewayV2HTTPResponse
		if err := json.Unmarshal(payload, &r); err != nil {
			return Answer{}, err
		}
		answer := Answer{Status: r.StatusCode, Header: http.Header{}, Body: r.Body}
		for name, value := range r.Headers {
			answer.Header.Set(name, value)
		}
		if len(r.Cookies) > 0 {
			answer.Header["Set-Cookie"] = r.Cookies
		}
		return answer, nil
	}
}
