package event

import "ticketing.com/auth/shared/reference"

// Source is the source attribute of the events about users.
const Source = "/api/users"

// The types of the events about users.
var (
	SignedUp  = Define[UserSignedUp]("com.ticketing.user.signedup.v1", Source, "An account was created.")
	SignedIn  = Define[UserSignedIn]("com.ticketing.user.signedin.v1", Source, "A session began with a password.")
	SignedOut = Define[UserSignedOut]("com.ticketing.user.signedout.v1", Source, "A session ended.")

	// UserDeleted is for receivers. No function publishes it yet.
	UserDeleted = Define[DeletedUser]("com.ticketing.user.deleted.v1", Source, "An account was deleted.")
)

// The reasons for the end of a session.
const (
	ByUser     = "user"      // the user signed out
	OnRequest  = "operator"  // another service requested it, by an event
	Displaced  = "displaced" // the user opened more sessions than the limit
	TokenReuse = "theft"     // a refresh token was used twice
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

// DeletedUser is the data of UserDeleted.
type DeletedUser struct {
	UserID string `json:"userId"`
}

// Members implements reference.Described.
func (DeletedUser) Members() []reference.Member { return []reference.Member{userID} }

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
		{Name: "reason", MinLength: 1, About: "Why the session ended: " + ByUser + " (by the user), " + OnRequest + " (by an event), " + Displaced + " (by a newer session at the session limit) or " + TokenReuse + " (a refresh token was used twice). Later versions can add reasons."}}
}

var (
	userID = reference.Member{Name: "userId", MinLength: 1, About: "The id of the user, which is opaque."}
	email  = reference.Member{Name: "email", Format: "email", About: "The email of the user, in lower case."}
)
