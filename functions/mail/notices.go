package mail

import (
	"fmt"
	"slices"
	"strings"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/events/event"
)

// switchable are the mails that an operator can switch off. The notice with the undo of a changed email
// is not among them: without it, an attacker that has changed the email keeps the account.
var switchable = []event.Purpose{event.NewDevice, event.PasswordNotice, event.DeletionNotice}

// notices are the switchable mails that are sent.
type notices []event.Purpose

// noticesFromConfig returns the notices of MAIL_NOTICES.
func noticesFromConfig(cfg *config.Config) (n notices) {
	text := cfg.Text("MAIL_NOTICES", "all")
	switch text {
	case "all":
		return switchable
	case "none":
		return nil
	}
	for name := range strings.SplitSeq(text, ",") {
		p := event.Purpose(strings.TrimSpace(name))
		if !slices.Contains(switchable, p) {
			cfg.Problem("MAIL_NOTICES", fmt.Sprintf("must be all, none, or some of %v, separated by commas", switchable))
			return switchable
		}
		n = append(n, p)
	}
	return n
}

// include reports whether a mail is sent.
func (n notices) include(template event.Purpose) bool {
	return !slices.Contains(switchable, template) || slices.Contains(n, template)
}
