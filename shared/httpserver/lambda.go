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
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
)

// lambdaSetting is set where the process was started by AWS Lambda.
const lambdaSetting = "AWS_LAMBDA_RUNTIME_API"

// A lambdaHandler serves API Gateway HTTP APIs (payload format 2.0) and Function URLs
// (buffered) by an HTTP handler, so that both answer alike.
type lambdaHandler struct{ http.Handler }

// Lambda returns the Lambda handler over an HTTP handler.
func Lambda(handler http.Handler) lambda.Handler { return lambdaHandler{handler} }

// Invoke implements lambda.Handler. It never returns an error: the response to a malformed
// event, which any client with the right to invoke the function can send, is 400.
//
// Invoke decodes the event itself. Package lambda would use encoding/json, which silently
// replaces invalid text.
func (h lambdaHandler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	w := &answer{header: http.Header{}, status: http.StatusOK}
	var e lambdaEvent
	// invalid text in a path or a header makes another path or header, as over HTTP
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
	return json.Marshal(w.proxied())
}

// serveLambda runs the Lambda handler for the life of the process. Lambda sends SIGTERM
// only between invocations, so there is nothing to finish.
func serveLambda(ctx context.Context, handler http.Handler) {
	context.AfterFunc(ctx, func() { os.Exit(exitFine) })
	lambda.Start(Lambda(handler))
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

// errMalformed: not a request as a gateway passes it on.
var errMalformed = errors.New("malformed request")

// request returns the request of an event.
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
	// AWS itself names the client, above; the rest of the header is the client's
	r.Header.Del("X-Forwarded-For")
	for _, cookie := range e.Cookies {
		r.Header.Add("Cookie", cookie)
	}
	return r, nil
}

// path returns the path of a request, without the stage. A named stage of an HTTP API is
// the first segment of rawPath, on a custom domain as well. The stage $default, the only one
// of a Function URL, is not in rawPath.
func (e *lambdaEvent) path() string {
	if stage := e.RequestContext.Stage; stage != "" && stage != "$default" {
		rest, ok := strings.CutPrefix(e.RawPath, "/"+stage)
		if ok && (rest == "" || rest[0] == '/') {
			return cmp.Or(rest, "/")
		}
	}
	return e.RawPath
}

// body returns the body of a request, byte for byte. Text that is not Unicode, such as a
// lone surrogate, becomes invalid UTF-8, so the endpoint refuses it as over HTTP.
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

// addHeader adds a header to those of a request. A gateway joins headers of one name with
// commas. A second Authorization header is refused, so addHeader separates those again: a
// comma that no parameter of the same credentials follows ends a header (RFC 9110 §11.4).
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

// noURI reports whether net/http refuses a character in a request target.
func noURI(c rune) bool { return c <= ' ' || c == 0x7f }

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

// A lambdaResponse is a response in payload format 2.0.
type lambdaResponse struct {
	StatusCode      int               `json:"statusCode"`
	Headers         map[string]string `json:"headers"`
	Cookies         []string          `json:"cookies,omitempty"`
	Body            string            `json:"body"`
	IsBase64Encoded bool              `json:"isBase64Encoded"`
}

// proxied returns the answer as the gateway takes it.
func (a *answer) proxied() lambdaResponse {
	out := lambdaResponse{StatusCode: a.status, Headers: map[string]string{}, Body: a.body.String()}
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
