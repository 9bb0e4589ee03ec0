package event

import (
	"time"

	"ticketing.com/auth/shared/reference"
)

// Source is the source attribute of the events about users.
const Source = "/api/users"

// The types of the events about users.
var (
	SignedUp  = Define[UserSignedUp]("com.ticketing.user.signedup.v1", Source, "An account was created.")
	SignedIn  = Define[UserSignedIn]("com.ticketing.user.signedin.v1", Source, "A session began with a password.")
	SignedOut = Define[UserSignedOut]("com.ticketing.user.signedout.v1", Source, "A session ended.")

	Verified          = Define[UserVerified]("com.ticketing.user.verified.v1", Source, "A user proved control of the email.")
	PasswordChanged   = Define[UserPasswordChanged]("com.ticketing.user.passwordchanged.v1", Source, "A password was replaced.")
	EmailChanged      = Define[UserEmailChanged]("com.ticketing.user.emailchanged.v1", Source, "The email of an account was replaced.")
	DeletionRequested = Define[UserDeletionRequested]("com.ticketing.user.deletionrequested.v1", Source, "A user requested the deletion of the account.")
	UserDeleted       = Define[DeletedUser]("com.ticketing.user.deleted.v1", Source, "An account was deleted.")
)

// The reasons for the end of a session.
const (
	ByUser     = "user"      // the user signed out
	OnRequest  = "operator"  // another service requested it, by an event
	Displaced  = "displaced" // the user opened more sessions than the limit
	TokenReuse = "theft"     // a refresh token was used twice
	NewSecret  = "password"  // the user changed the password
	Recovered  = "recovery"  // the user reset the password, or undid a change of the email
	Deleted    = "deleted"   // the user requested the deletion of the account
	Disabled   = "disabled"  // the account was disabled
)

// The causes of PasswordChanged.
const (
	ByReset  = "recovery" // with a link or a code of a mail
	ByChange = "user"     // with the current password
)

// UserSignedUp is the data of SignedUp.
type UserSignedUp struct {
	UserID    string `json:"userId"`
	Email     string `json:"email"`
	SessionID string `json:"sessionId,omitzero"`
}

// UserSignedIn is the data of SignedIn.
type UserSignedIn struct {
	UserID    string `json:"userId"`
	Email     string `json:"email"`
	SessionID string `json:"sessionId"`
}

// UserSignedOut is the data of SignedOut.
type UserSignedOut struct {
	UserID    string `json:"userId"`
	SessionID string `json:"sessionId"`
	Reason    string `json:"reason"`
}

// UserVerified is the data of Verified.
type UserVerified struct {
	UserID string `json:"userId"`
	Email  string `json:"email"`
}

// UserPasswordChanged is the data of PasswordChanged.
type UserPasswordChanged struct {
	UserID string `json:"userId"`
	By     string `json:"by"`
}

// UserEmailChanged is the data of EmailChanged.
type UserEmailChanged struct {
	UserID string `json:"userId"`
	Email  string `json:"email"`
	Before string `json:"before"`
}

// UserDeletionRequested is the data of DeletionRequested.
type UserDeletionRequested struct {
	UserID    string    `json:"userId"`
	DeletesAt time.Time `json:"deletesAt"`
}

// DeletedUser is the data of UserDeleted.
type DeletedUser struct {
	UserID string `json:"userId"`
}

// Members implements reference.Described.
func (DeletedUser) Members() []reference.Member { return []reference.Member{userID} }

// Members implements reference.Described.
func (UserVerified) Members() []reference.Member { return []reference.Member{userID, email} }

// Members implements reference.Described.
func (UserPasswordChanged) Members() []reference.Member {
	return []reference.Member{userID, {Name: "by", MinLength: 1, About: ByChange + " (with the current password) or " + ByReset + " (with a link or a code of a mail). Later versions can add causes."}}
}

// Members implements reference.Described.
func (UserEmailChanged) Members() []reference.Member {
	return []reference.Member{userID, email, {Name: "before", Format: "email", About: "The earlier email."}}
}

// Members implements reference.Described.
func (UserDeletionRequested) Members() []reference.Member {
	return []reference.Member{userID, {Name: "deletesAt", About: "The time at which the account is deleted, unless the user restores it before."}}
}

// Members implements reference.Described.
func (UserSignedUp) Members() []reference.Member {
	return []reference.Member{userID, email, {Name: "sessionId", MinLength: 1, About: "The first session, the claim sid of its tokens. Absent if the account was created by an event."}}
}

// Members implements reference.Described.
func (UserSignedIn) Members() []reference.Member {
	return []reference.Member{userID, email, {Name: "sessionId", MinLength: 1, About: "The session, the claim sid of its tokens."}}
}

// Members implements reference.Described.
func (UserSignedOut) Members() []reference.Member {
	return []reference.Member{userID,
		{Name: "sessionId", MinLength: 1, About: "The session, the claim sid of its tokens. No function accepts them any more."},
		{Name: "reason", MinLength: 1, About: "Why the session ended: " + ByUser + " (by the user), " + OnRequest + " (by an event), " + Displaced + " (by a newer session at the session limit), " + TokenReuse + " (a refresh token was used twice), " + NewSecret + " (a change of the password), " + Recovered + " (a reset of the password, or the undo of a change of the email), " + Deleted + " (a request for deletion) or " + Disabled + " (the account was disabled). Later versions can add reasons."}}
}

var (
	userID = reference.Member{Name: "userId", MinLength: 1, About: "The id of the user, which is opaque."}
	email  = reference.Member{Name: "email", Format: "email", About: "The email of the user, in lower case."}
)
