package session

import "ticketing.com/auth/shared/endpoint"

// Lifetime is the need of a function that opens or extends sessions. It also needs
// accesstoken.Signing.
var Lifetime = endpoint.Need{Settings: []string{"SESSION_TTL", "SESSION_MAX_TTL"}}
