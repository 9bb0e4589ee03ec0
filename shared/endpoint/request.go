package endpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"slices"
	"strings"

	"ticketing.com/auth/shared/apierror"
)

const (
	// MaxBody is the maximum length of a body, in bytes. Decoding stops there.
	MaxBody = 16 << 10
	// MaxToken is the maximum length of a bearer token, in bytes.
	MaxToken = 8 << 10
)

// A Request is a request as a transport passes it to an endpoint.
type Request struct {
	Method          string
	Param           string   // the path segment that a {name} stands for
	Query           string   // as sent, without the question mark
	ContentType     []string // the Content-Type headers; more than one is rejected
	ContentEncoding []string // the Content-Encoding headers
	Length          int64    // of the body, in bytes; negative if unknown
	Body            io.Reader
	Authorization   []string // the Authorization headers; more than one is rejected
	IdempotencyKey  []string // the Idempotency-Key headers
	AcceptLanguage  []string // the Accept-Language headers
	UserAgent       string   // the User-Agent header
	Key             string   // equal for a request and its retries; empty if the transport has none
	Function        string   // the name of the function that handles the request
	Client          Client   // zero for an event

	invalid bool // the input was rejected before the call of the handler
}

// A Client describes the client of a request, for rate limits. Embed it in an input that
// needs it. It does not authenticate the client.
type Client struct {
	Peer      string   // the address of the connection's peer, with or without a port
	Forwarded []string // the X-Forwarded-For headers; a client can forge them
	Device    string   // the device token that the client sent, valid or not
}

// ReadPart implements Part.
func (c *Client) ReadPart(_ context.Context, r *Request) error {
	*c = r.Client
	return nil
}

// Keyed holds the key of a request. Embed it in an input that must recognize retries.
type Keyed struct {
	Key string // as in Request, but different for each function
}

// withoutName lists the functions whose keys do not depend on their names. They stored keys before
// the keys of other functions did. All other functions take the same event with different keys.
var withoutName = []string{"signup", "signout"}

// ReadPart implements Part.
func (k *Keyed) ReadPart(_ context.Context, r *Request) (err error) {
	k.Key = r.Key
	if k.Key == "" {
		k.Key, err = requestKey(r.IdempotencyKey)
	}
	if k.Key != "" && !slices.Contains(withoutName, r.Function) {
		k.Key = digest("function", r.Function, k.Key)
	}
	return err
}

// digest returns 128 bits of SHA-256, in hexadecimal digits. The texts must not contain NUL.
func digest(texts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// MaxAgent is the maximum length of an Agent and of a Language, in bytes.
const MaxAgent = 256

// Agent holds the name of the client program. Embed it in an input that stores or shows it.
// The client can send any text.
type Agent struct {
	UserAgent string // the printable ASCII characters of the User-Agent header, at most MaxAgent bytes
}

// ReadPart implements Part.
func (a *Agent) ReadPart(_ context.Context, r *Request) error {
	a.UserAgent = printable(r.UserAgent)
	return nil
}

// Language holds the languages that the client prefers. Embed it in an input that selects
// a translation.
type Language struct {
	AcceptLanguage string // the header (RFC 9110 §12.5.4), as in Agent
}

// ReadPart implements Part.
func (l *Language) ReadPart(_ context.Context, r *Request) error {
	l.AcceptLanguage = printable(strings.Join(r.AcceptLanguage, ","))
	return nil
}

// printable returns the printable ASCII characters of a header, at most MaxAgent of them.
func printable(header string) string {
	kept := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, header[:min(len(header), 4*MaxAgent)])
	return kept[:min(len(kept), MaxAgent)]
}

// None is an empty input or output.
type None struct{}

// A Patch is a member that a client can change, delete or leave as it is (RFC 7396). It is
// for a PATCH request.
type Patch[T any] struct {
	Set   bool // the request has the member
	Value *T   // nil if the member is null
}

// patched is implemented by each Patch.
type patched interface{ patch() }

func (*Patch[T]) patch() {}

// Bearer returns the token in the Authorization header (RFC 6750 §2.1). It returns "" if
// there is no header or the scheme is not Bearer. It ignores a query and a cookie: a query
// would expose the token in logs, and a browser sends a cookie with cross-site requests.
//
// A gateway may join two headers with a comma. Bearer rejects a second bearer token in that
// form as well.
func (r *Request) Bearer() (string, error) {
	headers := r.Authorization
	switch len(headers) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", apierror.InvalidToken(errors.New("two Authorization headers"))
	}
	scheme, token := cutScheme(headers[0])
	if !strings.EqualFold(scheme, "Bearer") {
		for _, part := range strings.Split(headers[0], ",")[1:] {
			if scheme, _ := cutScheme(part); strings.EqualFold(scheme, "Bearer") {
				return "", apierror.InvalidToken(errors.New("two Authorization headers"))
			}
		}
		return "", nil
	}
	switch {
	case token == "":
		return "", apierror.InvalidToken(errors.New("an empty token"))
	case len(token) > MaxToken:
		return "", apierror.InvalidToken(errors.New("a token over the limit"))
	}
	return token, nil
}

// cutScheme splits a value of the Authorization header at the first white space.
func cutScheme(value string) (scheme, credentials string) {
	value = strings.Trim(value, " \t")
	if i := strings.IndexAny(value, " \t"); i >= 0 {
		return value[:i], strings.Trim(value[i:], " \t")
	}
	return value, ""
}

// requestKey returns the key of a request with an Idempotency-Key header
// (draft-ietf-httpapi-idempotency-key-header-07 §2.1: one Structured Field string). The
// client may omit the quotes. The key is a digest, because the client can send personal
// data as the header value.
func requestKey(headers []string) (string, error) {
	if len(headers) == 0 {
		return "", nil
	}
	value := strings.TrimSpace(headers[0])
	invalid := func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }
	if unquoted, ok := strings.CutPrefix(value, `"`); ok {
		value, ok = strings.CutSuffix(unquoted, `"`)
		if !ok {
			value = ""
		}
	} else if strings.Contains(value, ",") { // two headers that a gateway has joined
		value = ""
	}
	if len(headers) > 1 || value == "" || len(value) > MaxIdempotencyKey || strings.ContainsFunc(value, invalid) {
		return "", apierror.New(apierror.Invalid, "Idempotency-Key must be one string of 1 to 255 printable ASCII characters.")
	}
	return digest("http", value), nil
}

// MaxIdempotencyKey is the maximum length of an Idempotency-Key, in characters.
const MaxIdempotencyKey = 255

// readBody returns the body of a request with a media type.
func readBody(r *Request, mediaType string) ([]byte, error) {
	if !hasType(r.ContentType, mediaType) {
		return nil, apierror.New(apierror.UnsupportedMedia, "The body must be "+mediaType+".")
	}
	if !isUTF8(r.ContentType[0]) {
		return nil, apierror.New(apierror.UnsupportedMedia, "The body must be in UTF-8.")
	}
	if err := CheckEncoding(r.ContentEncoding); err != nil {
		return nil, err
	}
	tooLarge := apierror.New(apierror.TooLarge, "The body is larger than 16 KiB.")
	if r.Length > MaxBody {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	if err != nil {
		return nil, apierror.New(apierror.Invalid, "The body could not be read whole.")
	}
	if len(body) > MaxBody {
		return nil, tooLarge
	}
	return body, nil
}

// CheckEncoding returns an API error if the Content-Encoding headers of a request name a
// coding other than identity. It ignores empty headers and empty list elements.
func CheckEncoding(headers []string) error {
	for _, header := range headers {
		for coding := range strings.SplitSeq(header, ",") {
			if coding = strings.Trim(coding, " \t"); coding != "" && !strings.EqualFold(coding, "identity") {
				return apierror.Encoded()
			}
		}
	}
	return nil
}

func hasType(contentTypes []string, want string) bool {
	if len(contentTypes) != 1 {
		return false
	}
	mediaType, _, err := mime.ParseMediaType(contentTypes[0])
	return err == nil && mediaType == want
}

// isUTF8 reports whether a valid Content-Type has the charset UTF-8 or none. RFC 8259
// section 11 defines no charset parameter for JSON, but clients send it.
func isUTF8(contentType string) bool {
	_, parameters, _ := mime.ParseMediaType(contentType)
	charset, named := parameters["charset"]
	return !named || strings.EqualFold(charset, "utf-8")
}
