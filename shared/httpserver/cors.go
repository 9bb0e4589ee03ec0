package httpserver

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

	"ticketing.com/auth/shared/config"
)

// crossOrigin returns a handler that allows scripts of the origins in CORS_ALLOWED_ORIGINS
// to call next with the given methods. The setting lists full origins, separated by commas.
// It supports no patterns, because an attacker may control a name that matches.
func crossOrigin(cfg *config.Config, methods []string, next http.Handler) http.Handler {
	var origins []string
	for s := range strings.SplitSeq(cfg.Text("CORS_ALLOWED_ORIGINS", ""), ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		origin, ok := browserOrigin(s)
		if !ok {
			cfg.Problem("CORS_ALLOWED_ORIGINS", "must list origins such as https://tickets.example, separated by commas")
		}
		origins = append(origins, origin)
	}
	if len(origins) == 0 {
		return next
	}
	allowed := cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: methods,
		AllowedHeaders: []string{"Authorization", "Content-Type", "Device-Token", "Idempotency-Key", "Traceparent", "Tracestate", "Baggage"},
		ExposedHeaders: []string{"Device-Token", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"},
		MaxAge:         600,
	}).Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sortRequestedHeaders(r.Header)
		allowed.ServeHTTP(w, r)
	})
}

// sortRequestedHeaders rewrites the header names in a preflight request to the form that
// browsers send and package cors requires: lower case, sorted, without duplicates and
// empty list elements (RFC 9110 section 5.6.1.2).
func sortRequestedHeaders(h http.Header) {
	const name = "Access-Control-Request-Headers"
	if len(h[name]) == 0 {
		return
	}
	names := strings.Split(strings.ToLower(strings.Join(h[name], ",")), ",")
	for i, n := range names {
		names[i] = strings.TrimSpace(n)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "" })
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
	numericHost = regexp.MustCompile(`(^|\.)([0-9]+|0[xX][0-9a-fA-F]*)$`) // browsers convert these to IPv4 addresses
)

// browserOrigin returns an origin as a browser sends it, and reports whether a browser can
// send it. Web pages have the schemes http and https. Applications built from web pages
// have their own schemes, such as capacitor://localhost; browsers do not convert those
// hosts.
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
	case "", "ws", "wss", "ftp", "file", "data", "blob", "about", "javascript": // no page has one of these schemes, or its origin is null
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

// browserHost returns the host of a web page as a browser writes it, and reports whether it
// is valid. An IPv6 address has no brackets here.
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
