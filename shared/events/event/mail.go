package event

import (
	"time"

	"ticketing.com/auth/shared/reference"
)

// The types of the events about mails.
var (
	MailRequested = Define[RequestedMail]("com.ticketing.user.mail.requested.v1", Source, "A mail must be sent to a user.")
	MailFailed    = Define[FailedMail]("com.ticketing.user.mail.failed.v1", Source, "A mail cannot be delivered, and the system does not retry.")
)

// A Purpose is the reason for a mail. It selects the template, and it is part of the token in the
// mail, so a token serves one purpose only.
type Purpose string

// The purposes of mails with a token. The user confirms something with it.
const (
	Verification Purpose = "verification" // of the email of an account
	Recovery     Purpose = "recovery"     // of an account whose password is lost
	EmailChange  Purpose = "email"        // sent to the new address
	EmailUndo    Purpose = "undo"         // sent to the earlier address after a change
)

// The purposes of notices. These mails have no token.
const (
	NewDevice      Purpose = "newdevice"
	PasswordNotice Purpose = "passwordchanged"
	DeletionNotice Purpose = "deletion"
)

// RequestedMail is the data of MailRequested. It has no secret: function mail computes the token
// and the code from the other members and its key.
type RequestedMail struct {
	UserID    string    `json:"userId"`
	To        string    `json:"to"`
	Locale    string    `json:"locale,omitzero"` // a language tag (RFC 5646), or empty
	Template  Purpose   `json:"template"`
	Purpose   Purpose   `json:"purpose"`
	Nonce     string    `json:"nonce,omitzero"`     // empty for a notice
	ExpiresAt time.Time `json:"expiresAt,omitzero"` // of the token; zero for a notice

	At        time.Time `json:"at"`                 // the time of the change
	Agent     string    `json:"agent,omitzero"`     // the browser and system of the client, such as Chrome on macOS
	Place     string    `json:"place,omitzero"`     // the network of the client
	DeletesAt time.Time `json:"deletesAt,omitzero"` // for DeletionNotice
}

// FailedMail is the data of MailFailed.
type FailedMail struct {
	UserID  string  `json:"userId"`
	Purpose Purpose `json:"purpose"`
	Reason  string  `json:"reason"`
}

// Members implements reference.Described.
func (RequestedMail) Members() []reference.Member {
	return []reference.Member{userID,
		{Name: "to", Format: "email", About: "The address of the recipient."},
		{Name: "locale", About: "The preferred language of the user, a language tag (RFC 5646)."},
		{Name: "template", MinLength: 1, About: "The name of the template."},
		{Name: "purpose", MinLength: 1, About: "The purpose of the token. The limit of mails to a recipient counts per purpose."},
		{Name: "nonce", About: "Identifies the request. It is no secret. Absent for a mail without a token."},
		{Name: "expiresAt", About: "The time at which the token expires. Absent for a mail without a token."},
		{Name: "at", About: "The time of the change that caused the mail."},
		{Name: "agent", About: "The browser and the system of the client."},
		{Name: "place", About: "The network of the client."},
		{Name: "deletesAt", About: "The time at which the account is deleted."},
	}
}

// Members implements reference.Described.
func (FailedMail) Members() []reference.Member {
	return []reference.Member{userID,
		{Name: "purpose", MinLength: 1, About: "The purpose of the mail."},
		{Name: "reason", MinLength: 1, About: "refused (by the mail server) or address (the address cannot receive mail). Later versions can add reasons."},
	}
}
