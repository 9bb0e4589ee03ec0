package policy

import "ticketing.com/auth/shared/endpoint"

// Checking is the need of a function in which users choose passwords.
var Checking = endpoint.Need{Settings: []string{"PASSWORD_MIN_LENGTH", "PASSWORD_BLOCKLIST_FILE"}}
