package lambdatest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// A Gateway is an http.RoundTripper that sends requests to the process behind a Runtime and
// returns its responses. One route matches all paths.
type Gateway struct {
	// Base64 encodes every body. A gateway may do so with any body.
	Base64 bool

	// Stage is the named stage of an HTTP API. It is the first segment of every path. If it
	// is empty, the stage is $default.
	Stage string

	runtime       *Runtime
	account, host string
	sourceIP      string
	decodesPath   bool
}

// HTTPAPI returns an HTTP API of API Gateway with a client on IPv4. It sends the
// percent-decoded path, up to a question mark.
func HTTPAPI(r *Runtime) Gateway {
	return Gateway{runtime: r, decodesPath: true, account: "123456789012", host: "api-id.execute-api.eu-central-1.amazonaws.com", sourceIP: "203.0.113.9"}
}

// FunctionURL returns a Function URL with a client on IPv6.
func FunctionURL(r *Runtime) Gateway {
	return Gateway{runtime: r, account: "anonymous", host: "url-id.lambda-url.eu-central-1.on.aws", sourceIP: "2001:db8::9"}
}

// An event is a request in payload format 2.0.
// https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
// https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
type event struct {
	Version         string            `json:"version"`
	RouteKey        string            `json:"routeKey"`
	RawPath         string            `json:"rawPath"`
	RawQueryString  string            `json:"rawQueryString"`
	Cookies         []string          `json:"cookies,omitempty"`
	Headers         map[string]string `json:"headers"`
	Query           map[string]string `json:"queryStringParameters,omitempty"`
	RequestContext  requestContext    `json:"requestContext"`
	Body            *string           `json:"body,omitempty"`
	IsBase64Encoded bool              `json:"isBase64Encoded"`
	PathParameters  map[string]string `json:"pathParameters"` // null if there are none
	StageVariables  map[string]string `json:"stageVariables"`
}

type requestContext struct {
	AccountID      string  `json:"accountId"`
	APIID          string  `json:"apiId"`
	Authentication *string `json:"authentication"`
	DomainName     string  `json:"domainName"`
	DomainPrefix   string  `json:"domainPrefix"`
	HTTP           struct {
		Method    string `json:"method"`
		Path      string `json:"path"`
		Protocol  string `json:"protocol"`
		SourceIP  string `json:"sourceIp"`
		UserAgent string `json:"userAgent"`
	} `json:"http"`
	RequestID string `json:"requestId"`
	RouteKey  string `json:"routeKey"`
	Stage     string `json:"stage"`
	Time      string `json:"time"`
	TimeEpoch int64  `json:"timeEpoch"`
}

// RoundTrip implements http.RoundTripper. It returns an error if the function fails. The
// gateways respond with 502 or 500 without a reason.
func (g Gateway) RoundTrip(r *http.Request) (*http.Response, error) {
	e, err := g.event(r)
	if err != nil {
		return nil, err
	}
	result, err := g.runtime.Invoke(r.Context(), e)
	if err != nil {
		return nil, err
	}
	if result.Error != "" {
		return nil, fmt.Errorf("the function failed: %s", result.Payload)
	}
	return response(r, result.Payload)
}

func (g Gateway) event(r *http.Request) ([]byte, error) {
	e := event{
		Version:        "2.0",
		RouteKey:       "$default",
		RawPath:        r.URL.EscapedPath(),
		RawQueryString: r.URL.RawQuery,
		Headers:        map[string]string{"host": g.host, "x-forwarded-for": g.sourceIP, "x-forwarded-port": "443", "x-forwarded-proto": "https"},
		Query:          map[string]string{},
	}
	if g.decodesPath {
		e.RawPath, _, _ = strings.Cut(r.URL.Path, "?")
	}
	stage := "$default"
	if g.Stage != "" {
		stage, e.RawPath = g.Stage, "/"+g.Stage+e.RawPath
	}
	for name, values := range r.URL.Query() {
		e.Query[name] = strings.Join(values, ",")
	}
	for name, values := range r.Header {
		if name == "Cookie" {
			for _, line := range values {
				e.Cookies = append(e.Cookies, strings.Split(line, "; ")...)
			}
			continue
		}
		e.Headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	if err := g.setBody(&e, r); err != nil {
		return nil, err
	}
	c := &e.RequestContext
	c.AccountID, c.DomainName, c.RouteKey, c.Stage = g.account, g.host, e.RouteKey, stage
	c.DomainPrefix, _, _ = strings.Cut(g.host, ".")
	c.APIID = c.DomainPrefix
	c.HTTP.Method, c.HTTP.Path, c.HTTP.Protocol = r.Method, e.RawPath, "HTTP/1.1"
	c.HTTP.SourceIP, c.HTTP.UserAgent = g.sourceIP, r.UserAgent()
	now := time.Now().UTC()
	c.RequestID, c.Time, c.TimeEpoch = "JKJaXmPLvHcESHA=", now.Format("02/Jan/2006:15:04:05 -0700"), now.UnixMilli()
	return json.Marshal(e)
}

// setBody sends text unchanged and other bodies in base64. The media type determines if a body
// is text. Invalid UTF-8 cannot be text in an event.
func (g Gateway) setBody(e *event, r *http.Request) error {
	if r.Body == nil {
		return nil
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || len(body) == 0 {
		return err
	}
	e.Headers["content-length"] = fmt.Sprint(len(body))
	text := string(body)
	if e.IsBase64Encoded = g.Base64 || !isText(r.Header.Get("Content-Type")) || !utf8.Valid(body); e.IsBase64Encoded {
		text = base64.StdEncoding.EncodeToString(body)
	}
	e.Body = &text
	return nil
}

func isText(contentType string) bool {
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	switch mediaType {
	case "application/json", "application/xml", "application/javascript":
		return true
	}
	return strings.HasPrefix(mediaType, "text/")
}

// response parses a response in the full form of payload format 2.0. The functions always set
// the status and never rely on the gateway to infer it.
func response(r *http.Request, payload []byte) (*http.Response, error) {
	var result struct {
		StatusCode      int               `json:"statusCode"`
		Headers         map[string]string `json:"headers"`
		Cookies         []string          `json:"cookies"`
		Body            string            `json:"body"`
		IsBase64Encoded bool              `json:"isBase64Encoded"`
	}
	if err := json.Unmarshal(payload, &result); err != nil || result.StatusCode < 200 || result.StatusCode > 599 {
		return nil, fmt.Errorf("the function returned an invalid response: %s", payload)
	}
	body := []byte(result.Body)
	if result.IsBase64Encoded {
		var err error
		if body, err = base64.StdEncoding.DecodeString(result.Body); err != nil {
			return nil, fmt.Errorf("the body is not base64: %w", err)
		}
	}
	header := http.Header{}
	for name, value := range result.Headers {
		header.Set(name, value)
	}
	for _, cookie := range result.Cookies {
		header.Add("Set-Cookie", cookie)
	}
	return &http.Response{
		StatusCode:    result.StatusCode,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		Request:       r,
	}, nil
}

// errorType returns the type of an error that a function reported.
func errorType(payload []byte) string {
	var e struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}
	if json.Unmarshal(payload, &e) != nil || e.Type == "" || e.Message == "" {
		return "invalid error report: " + string(payload)
	}
	return e.Type
}
