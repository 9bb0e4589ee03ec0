package bearer

import (
	"errors"
	"net/http"
)

// Optional passes the claims of a valid token to next, and a request without a bearer token
// without claims. It answers a request with an invalid token with 401.
func (v *Verifier) Optional(next http.Handler) http.Handler { return v.handler(next, true, nil) }

// Require passes the claims of a valid token to next, if all checks accept them. It answers every
// other request with 401, 403 or 503.
func (v *Verifier) Require(next http.Handler, checks ...Check) http.Handler {
	return v.handler(next, false, checks)
}

func (v *Verifier) handler(next http.Handler, optional bool, checks []Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, err := v.Verify(r.Context(), r.Header.Values("Authorization"), checks...)
		if err == nil {
			next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), claims)))
		} else if optional && err == ErrNoToken {
			next.ServeHTTP(w, r)
		} else if e, ok := errors.AsType[*Error](err); ok {
			e.ServeHTTP(w, r)
		}
	})
}
