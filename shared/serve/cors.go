package serve

import (
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/cors"
	"golang.org/x/net/idna"

	"ticketing.com/auth/shared/app"
)

// crossOrigin lets scripts of the origins in CORS_ALLOWED_ORIGINS call with the given
// methods. Origins are separated by commas, each in full: a pattern would allow whoever
// controls one name under it.
func crossOrigin(w *app.Wiring, methods []string, next http.Handler) http.Handler {
	var origins []string
	for s := range strings.SplitSeq(w.Text("CORS_ALLOWED_ORIGINS", ""), ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		origin, ok := browserOrigin(s)
		if !ok {
			w.Fault("CORS_ALLOWED_ORIGINS", "must list origins such as https://tickets.example, separated by commas")
		}
		origins = append(origins, origin)
	}
	if len(origins) == 0 {
		return next
	}
	allowed := cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: methods,
		AllowedHeaders: []string{"Authorization", "Content-Type", "Idempotency-Key", "Traceparent", "Tracestate", "Baggage"},
		ExposedHeaders: []string{"RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"},
		MaxAge:         600,
	}).Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sortRequestedHeaders(r.Header)
		allowed.ServeHTTP(w, r)
	})
}

// sortRequestedHeaders brings the header names that a preflight asks for into the form
// that browsers send and package cors expects: lower case, sorted, each once.
func sortRequestedHeaders(h http.Header) {
	const name = "Access-Control-Request-Headers"
	if len(h[name]) == 0 {
		return
	}
	names := strings.Split(strings.ToLower(strings.Join(h[name], ",")), ",")
	for i, n := range names {
		names[i] = strings.TrimSpace(n)
	}
	slices.Sort(names)
	h.Set(name, strings.Join(slices.Compact(names), ","))
}

// hosts converts a host as browsers do (WHATWG URL §3.3, "domain to ASCII").
var hosts = idna.New(
	idna.MapForLookup(),
	idna.Transitional(false),
	idna.StrictDomainName(false),
	idna.CheckHyphens(false),
	idna.CheckJoiners(true),
	idna.BidiRule(),
)

var (
	plainHost   = regexp.MustCompile(`^[a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*$`)
	numericHost = regexp.MustCompile(`(^|\.)([0-9]+|0[xX][0-9a-fA-F]*)$`) // of these, browsers make IPv4 addresses
)

// browserOrigin returns an origin as a browser sends it, and whether a browser can send
// it. Web pages have http and https. Applications made of web pages have schemes of their
// own, such as capacitor://localhost, whose hosts browsers do not convert.
func browserOrigin(s string) (origin string, ok bool) {
	u, err := url.Parse(s)
	if err != nil || u.Path != "" || strings.ContainsAny(s, "?#@") {
		return "", false
	}
	host, port := u.Hostname(), u.Port()
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return "", false
		}
		port = strconv.FormatUint(n, 10)
	}
	switch u.Scheme {
	case "http", "https":
		if host, ok = browserHost(host); !ok {
			return "", false
		}
		if port == map[string]string{"http": "80", "https": "443"}[u.Scheme] {
			port = ""
		}
	case "", "ws", "wss", "ftp", "file", "data", "blob", "about", "javascript": // no page has these, or its origin is null
		return "", false
	default:
		if !plainHost.MatchString(host) {
			return "", false
		}
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" {
		host += ":" + port
	}
	return u.Scheme + "://" + host, true
}

// browserHost returns the host of a web page as a browser writes it, an IPv6 address
// without its brackets, and whether it is one.
func browserHost(host string) (string, bool) {
	if strings.Contains(host, ":") {
		ip, err := netip.ParseAddr(host)
		return ip.String(), err == nil && ip.Zone() == "" && !ip.Is4In6()
	}
	host, err := hosts.ToASCII(host)
	if err != nil || !plainHost.MatchString(host) {
		return "", false
	}
	_, err = netip.ParseAddr(host)
	return host, err == nil || !numericHost.MatchString(host)
}
