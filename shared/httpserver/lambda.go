package httpserver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/telemetry"
)

// lambdaSetting is an environment variable that AWS Lambda sets for its processes.
const lambdaSetting = "AWS_LAMBDA_RUNTIME_API"

// A lambdaHandler passes the requests of API Gateway HTTP APIs (payload format 2.0) and
// buffered Function URLs to an HTTP handler. So the responses are the same as over HTTP.
type lambdaHandler struct{ http.Handler }

// Lambda returns a Lambda handler that calls an HTTP handler.
func Lambda(handler http.Handler) lambda.Handler { return lambdaHandler{handler} }

// Invoke implements lambda.Handler. It never returns an error: the response to a malformed
// event, which any client with the right to invoke the function can send, is 400.
//
// Invoke decodes the event itself. Package lambda would use encoding/json, which silently
// replaces invalid text.
func (h lambdaHandler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	w := &bufferedResponse{header: http.Header{}, status: http.StatusOK}
	var e lambdaEvent
	// as over HTTP, a path or header with invalid text is another path or header
	err := json.Unmarshal(payload, &e, jsontext.AllowInvalidUTF8(true))
	var r *http.Request
	if err == nil {
		r, err = e.request(ctx)
	}
	if err == nil {
		h.ServeHTTP(w, r)
	} else {
		endpoint.Refuse(apierror.New(apierror.Invalid, "The request is malformed.")).Write(w)
	}
	if e.RequestContext.HTTP.Method == http.MethodHead {
		w.body.Reset()
	}
	return json.Marshal(w.payload())
}

// serveLambda runs the Lambda handler until the process ends. Lambda sends SIGTERM only
// between invocations, so no request is in flight.
func serveLambda(ctx context.Context, handler http.Handler, t *telemetry.Telemetry) {
	context.AfterFunc(ctx, func() { os.Exit(exitSuccess) })
	lambda.Start(flushing{Lambda(handler), t})
}

// flushTimeout bounds how long a response waits for the export of its spans and metrics.
const flushTimeout = 300 * time.Millisecond

// A flushing handler exports the spans and the metrics of a request before the response, because Lambda
// may freeze the process after it.
type flushing struct {
	lambda.Handler
	telemetry *telemetry.Telemetry
}

// Invoke implements lambda.Handler.
func (h flushing) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	response, err := h.Handler.Invoke(ctx, payload)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	h.telemetry.Flush(ctx)
	return response, err
}

// A lambdaEvent holds the used members of a request in payload format 2.0.
type lambdaEvent struct {
	RawPath         string            `json:"rawPath"`
	RawQueryString  string            `json:"rawQueryString"`
	Cookies         []string          `json:"cookies"`
	Headers         map[string]string `json:"headers"`
	Body            jsontext.Value    `json:"body"`
	IsBase64Encoded bool              `json:"isBase64Encoded"`
	RequestContext  struct {
		DomainName string `json:"domainName"`
		Stage      string `json:"stage"`
		HTTP       struct {
			Method   string `json:"method"`
			SourceIP string `json:"sourceIp"`
		} `json:"http"`
	} `json:"requestContext"`
}

// errMalformed is the error for an event that no gateway sends.
var errMalformed = errors.New("malformed request")

// request returns the HTTP request in an event.
func (e *lambdaEvent) request(ctx context.Context) (*http.Request, error) {
	target, method := e.path(), e.RequestContext.HTTP.Method
	if method == "" || !strings.HasPrefix(target, "/") && target != "*" || strings.ContainsFunc(e.RawQueryString, noURI) {
		return nil, errMalformed
	}
	body, err := e.body()
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, "/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	// not parsed: in a URL, //x would begin a host and ? a query
	r.URL = &url.URL{Path: target, RawQuery: e.RawQueryString}
	if path, err := url.PathUnescape(target); err == nil {
		r.URL.Path, r.URL.RawPath = path, target
	}
	r.Host = e.RequestContext.DomainName
	r.RemoteAddr = net.JoinHostPort(e.RequestContext.HTTP.SourceIP, "0")
	for name, value := range e.Headers {
		addHeader(r.Header, name, value)
	}
	// SourceIP, from AWS, is the client address; the client can forge the rest of the header
	r.Header.Del("X-Forwarded-For")
	for _, cookie := range e.Cookies {
		r.Header.Add("Cookie", cookie)
	}
	return r, nil
}

// path returns the path of a request without the stage. A named stage of an HTTP API is the
// first segment of rawPath, also on a custom domain. rawPath does not contain the stage
// $default, the only stage of a Function URL.
func (e *lambdaEvent) path() string {
	if stage := e.RequestContext.Stage; stage != "" && stage != "$default" {
		rest, ok := strings.CutPrefix(e.RawPath, "/"+stage)
		if ok && (rest == "" || rest[0] == '/') {
			return cmp.Or(rest, "/")
		}
	}
	return e.RawPath
}

// body returns the body of a request. It converts text that is not Unicode, such as a lone
// surrogate, to invalid UTF-8, which the endpoint rejects as over HTTP.
func (e *lambdaEvent) body() ([]byte, error) {
	switch e.Body.Kind() {
	case 0, 'n': // absent or null
		return nil, nil
	case '"':
	default:
		return nil, errMalformed
	}
	body, err := jsontext.AppendUnquote(nil, e.Body)
	if err != nil { // invalid UTF-8 or a lone surrogate, and nothing else in a valid literal
		body = bytes.ReplaceAll(body, []byte("\ufffd"), []byte{0xff})
	}
	if e.IsBase64Encoded {
		return base64.StdEncoding.AppendDecode(nil, body)
	}
	return body, nil
}

// addHeader adds a header to a request. A gateway joins headers of one name with commas. An
// endpoint rejects a second Authorization header, so addHeader splits a joined one. A comma
// ends a header unless a parameter of the same credentials follows (RFC 9110 §11.4).
func addHeader(h http.Header, name, value string) {
	if http.CanonicalHeaderKey(name) == "Authorization" {
		for i := 0; i < len(value); i++ {
			if value[i] == ',' && !authParam.MatchString(value[i+1:]) {
				h.Add(name, value[:i])
				value, i = value[i+1:], -1
			}
		}
	}
	h.Add(name, value)
}

// authParam is the beginning of a parameter, such as realm="x".
var authParam = regexp.MustCompile(`^[ \t]*[^ \t=,]+[ \t]*=`)

// noURI reports whether net/http rejects a character in a request target.
func noURI(c rune) bool { return c <= ' ' || c == 0x7f }

// A bufferedResponse buffers a response.
type bufferedResponse struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (w *bufferedResponse) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *bufferedResponse) WriteHeader(status int) { w.status = status }

// Write implements http.ResponseWriter.
func (w *bufferedResponse) Write(p []byte) (int, error) { return w.body.Write(p) }

// A lambdaResponse is a response in payload format 2.0.
type lambdaResponse struct {
	StatusCode      int               `json:"statusCode"`
	Headers         map[string]string `json:"headers"`
	Cookies         []string          `json:"cookies,omitempty"`
	Body            string            `json:"body"`
	IsBase64Encoded bool              `json:"isBase64Encoded"`
}

// payload returns the response in payload format 2.0.
func (w *bufferedResponse) payload() lambdaResponse {
	out := lambdaResponse{StatusCode: w.status, Headers: map[string]string{}, Body: w.body.String()}
	if !utf8.ValidString(out.Body) {
		out.Body, out.IsBase64Encoded = base64.StdEncoding.EncodeToString(w.body.Bytes()), true
	}
	for name, values := range w.header {
		switch name {
		case "Set-Cookie":
			out.Cookies = values
		case "Connection", "Content-Length": // the gateway sets these
		default:
			out.Headers[name] = strings.Join(values, ", ") // RFC 9110 §5.3
		}
	}
	return out
}
