package policy

import (
	"fmt"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/reference"
)

// Checking is the need of a function in which users choose passwords.
var Checking = endpoint.Need{Settings: []string{"PASSWORD_MIN_LENGTH", "PASSWORD_BLOCKLIST_FILE"}}

// Member describes a member of an input with a new password.
func Member(name string) reference.Member {
	return reference.Member{Name: name, Format: "password", MinLength: MinLength, MaxLength: password.MaxBytes,
		About: fmt.Sprintf("Normalised to NFC, in which it has %d to %d characters. A common password is refused, and so is one that consists of parts of the email or the platform's name. There are no rules for digits or symbols. The operator can require more characters.", MinLength, MaxLength)}
}
