package bearer

import (
	"errors"
	"strings"

	"ticketing.com/auth/shared/bearer/token"
)

// parseAuthorization returns the token in the values of the Authorization header (RFC 6750
// section 2.1). Its error is ErrNoToken without a header or with another scheme. A proxy may join
// two headers with a comma, so a second token there is refused too.
func parseAuthorization(values []string) (string, error) {
	switch len(values) {
	case 0:
		return "", ErrNoToken
	case 1:
	default:
		return "", invalidToken(errors.New("two Authorization headers"))
	}
	scheme, raw := cutScheme(values[0])
	if !strings.EqualFold(scheme, "Bearer") {
		for _, part := range strings.Split(values[0], ",")[1:] {
			if scheme, _ := cutScheme(part); strings.EqualFold(scheme, "Bearer") {
				return "", invalidToken(errors.New("two Authorization headers"))
			}
		}
		return "", ErrNoToken
	}
	switch {
	case len(raw) > token.MaxLength:
		return "", invalidToken(errors.New("the token is longer than 8 KiB"))
	case !isToken68(raw):
		return "", invalidToken(errors.New("the token does not have the syntax token68"))
	}
	return raw, nil
}

// cutScheme splits a value at the first white space.
func cutScheme(value string) (scheme, credentials string) {
	value = strings.Trim(value, " \t")
	if i := strings.IndexAny(value, " \t"); i >= 0 {
		return value[:i], strings.Trim(value[i:], " \t")
	}
	return value, ""
}

// isToken68 reports whether s has the syntax token68 of RFC 9110 section 11.2.
func isToken68(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~+/", c) >= 0) {
			return false
		}
	}
	return s != ""
}
