package bearer

import (
	"slices"
	"time"
)

// A Check is a condition on the claims of a valid token: Roles, Fresh or Level.
type Check struct {
	roles  []string      // any of them, or nil
	maxAge time.Duration // of the authentication, or 0
	level  string        // the least acr, or ""
}

// levels are the assurance levels of the claim acr, in ascending order.
var levels = []string{"aal1", "aal2", "phr"}

// Roles requires one of the roles. A user without them receives 403. It panics without a role.
func Roles(anyOf ...string) Check {
	if len(anyOf) == 0 {
		panic("bearer: Roles needs a role")
	}
	return Check{roles: slices.Clone(anyOf)}
}

// Fresh requires that the user has authenticated at most maxAge ago. Otherwise the client receives
// 401, and the user must sign in again (RFC 9470). It panics below one second.
func Fresh(maxAge time.Duration) Check {
	if maxAge < time.Second {
		panic("bearer: Fresh needs a second or more")
	}
	return Check{maxAge: maxAge}
}

// Level requires an authentication at the level or above it. The levels are aal1 (one factor), aal2
// (two factors) and phr (a phishing-resistant factor). Otherwise the client receives 401, and the
// user must sign in at this level (RFC 9470). It panics for another level.
func Level(acr string) Check {
	if rank(acr) < 0 {
		panic("bearer: the level is not aal1, aal2 or phr")
	}
	return Check{level: acr}
}

// rank returns the position of a level, or -1 for an unknown one.
func rank(acr string) int { return slices.Index(levels, acr) }

// evaluate returns the error of the checks that fail, or nil. A user that lacks a role would sign
// in again for nothing, so the roles come first. The challenge names everything that the checks
// need of an authentication, so that the user signs in again once.
func evaluate(checks []Check, claims Claims, now time.Time) error {
	var maxAge time.Duration
	var level string
	for _, c := range checks {
		if c.roles != nil && !slices.ContainsFunc(c.roles, func(role string) bool { return slices.Contains(claims.Roles, role) }) {
			return forbidden()
		}
		if c.maxAge > 0 && (maxAge == 0 || c.maxAge < maxAge) {
			maxAge = c.maxAge
		}
		if rank(c.level) > rank(level) {
			level = c.level
		}
	}
	stale := maxAge > 0 && !claims.Fresh(maxAge, now)
	if stale || rank(claims.ACR) < rank(level) {
		return reauthenticate(level, maxAge)
	}
	return nil
}
