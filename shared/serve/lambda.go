package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/fault"
)

// lambdaSetting is set where the process was started by AWS Lambda.
const lambdaSetting = "AWS_LAMBDA_RUNTIME_API"

// Lambda returns the Lambda door: API Gateway HTTP APIs (payload format 2.0) and
// Function URLs (buffered) over the HTTP door, so that both answer alike.
func Lambda(handler http.Handler) func(context.Context, events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
	return func(ctx context.Context, e events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
		w := &answer{header: http.Header{}, status: http.StatusOK}
		r, err := lambdaRequest(ctx, e)
		if err == nil {
			handler.ServeHTTP(w, r)
		} else { // no gateway sends this; somebody who may invoke the function did
			endpoint.Refuse(fault.New(fault.Invalid, "The request is malformed.")).Write(w)
		}
		if e.RequestContext.HTTP.Method == http.MethodHead {
			w.body.Reset()
		}
		return w.proxied(), nil
	}
}

// serveLambda runs the Lambda door for the life of the process. Lambda sends
// SIGTERM only between invocations, so there is nothing to finish.
func serveLambda(ctx context.Context, handler http.Handler) {
	context.AfterFunc(ctx, func() { os.Exit(exitFine) })
	lambda.Start(Lambda(handler))
}

func lambdaRequest(ctx context.Context, e events.APIGatewayV2HTTPRequest) (*http.Request, error) {
	path, err := url.PathUnescape(e.RawPath)
	if err != nil || !strings.HasPrefix(path, "/") || !printable(e.RawPath+e.RawQueryString) {
		return nil, errMalformed
	}
	body := []byte(e.Body)
	if e.IsBase64Encoded {
		if body, err = base64.StdEncoding.DecodeString(e.Body); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, e.RequestContext.HTTP.Method, "/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	// not parsed: in a URL, //x would begin a host and ? a query
	r.URL = &url.URL{Path: path, RawPath: e.RawPath, RawQuery: e.RawQueryString}
	r.Host = e.RequestContext.DomainName
	r.RemoteAddr = net.JoinHostPort(e.RequestContext.HTTP.SourceIP, "0")
	for name, value := range e.Headers { // of several with one name the gateway makes one, with commas
		r.Header.Set(name, value)
	}
	// who called the gateway is told above, by AWS itself; what the header adds to
	// that, the caller wrote
	r.Header.Del("X-Forwarded-For")
	for _, cookie := range e.Cookies {
		r.Header.Add("Cookie", cookie)
	}
	return r, nil
}

// errMalformed: not a request as a gateway passes it on.
var errMalformed = errors.New("malformed request")

// printable tells what a request line may hold: a URI has nothing but printable
// ASCII (RFC 3986 §2).
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

// An answer is a response that is kept until it is whole.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

// proxied returns the answer as the gateway takes it.
func (a *answer) proxied() events.APIGatewayV2HTTPResponse {
	out := events.APIGatewayV2HTTPResponse{StatusCode: a.status, Headers: map[string]string{}, Body: a.body.String()}
	if !utf8.ValidString(out.Body) {
		out.Body, out.IsBase64Encoded = base64.StdEncoding.EncodeToString(a.body.Bytes()), true
	}
	for name, values := range a.header {
		switch name {
		case "Set-Cookie":
			out.Cookies = values
		case "Connection", "Content-Length": // the gateway's own business
		default:
			out.Headers[name] = strings.Join(values, ", ") // RFC 9110 §5.3
		}
	}
	return out
}
