// Package user is the user store over MongoDB: one user, one document.
//
//	users: { _id, email, password, createdAt?, disabledAt?, opened?,
//	         sessions: { <sid>: { family, token, generation, used?: { <generation>: … },
//	                              createdAt, rotatedAt, expiresAt } },
//	         events:   { <id>:  { type, time, trace?, data, tries? } }, undelivered?,
//	         refused?: { <id>:  { type, time, trace?, data, tries, retryAt } }, retryAt?,
//	         handled:  { <key>: { at, ended } },
//	         devices?: { <digest of a device token>: when it was last signed in with } }
//
// A user and all its sessions are ONE document, so every change of state is ONE
// atomic write with no transaction, on any MongoDB: "a write operation is atomic
// on the level of a single document" (MongoDB manual, Atomicity and
// Transactions). Whatever must hold at the moment of a write stands in that
// write's filter; nothing is looked up first and written later on trust. Of two
// writers whose filters exclude each other one matches and the other does not,
// and the loser is told so by the matched count.
//
// Every read checks expiry. A sign-in removes expired sessions, and a refresh removes used
// refresh tokens; both only free space.
//
// Where there is a sink, each change writes the event that tells of it into the
// same document by the same write (the outbox pattern): events are what was not
// delivered yet, undelivered is when the oldest of them was written, or before. Events that
// the sink refuses move to refused; retryAt is when the earliest of them is tried again.
// handled remembers which events of others were acted on.
//
// A user who is brought along is { _id, email, password }, all of them strings, the
// email in the form that package email gives it; the rest comes with the first
// sign-in.
//
// The store uses only operations that MongoDB and the embedded server answer
// alike. It translates the driver's errors: what callers see is one of the
// errors below, or a fault.Away where the database does not answer.
//
// It hashes no password, makes no token and has no clock.
package user

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/reference"
)

// MaxID is the length of the longest user id, in bytes. Each token of the user holds the id.
const MaxID = 128

var (
	// ErrDuplicate: another user has this email, or this id. Not every server says
	// which.
	ErrDuplicate = errors.New("the email is in use")
	// ErrNotFound: there is no such user.
	ErrNotFound = errors.New("no such user")
	// ErrUnreadable: the stored account has a member of an unexpected type, or an id over
	// MaxID. The log names the user.
	ErrUnreadable = errors.New("the stored account cannot be read")
	// ErrChanged: the password or the state of the account is no longer the one
	// that was checked.
	ErrChanged = errors.New("the account has changed since it was read")
	// ErrSessionEnded: the session is over: signed out, expired, given way to a newer
	// one, or its user is gone or disabled.
	ErrSessionEnded = errors.New("the session has ended")
	// ErrTokenReused: a refresh token came a second time, too late to be a lost
	// answer. It is taken for stolen and the session has ended (RFC 9700 §4.14.2).
	ErrTokenReused = errors.New("the refresh token was used before: session ended")
)

// A User is what the world may know of a user.
type User struct {
	ID    string `json:"id"    bson:"_id"` // opaque
	Email string `json:"email" bson:"email"`
}

// Members implements reference.Described.
func (User) Members() []reference.Member {
	return []reference.Member{
		{Name: "id", Opaque: true},
		{Name: "email", Format: "email", About: "In its normal form: the domain in A-labels, all of it lower-cased."},
	}
}

// A Session is the record of one sign-in. It holds hashes only: whoever reads
// the database cannot refresh with what is found there.
type Session struct {
	ID string `bson:"-"` // the key in the document's map

	Family     []byte          `bson:"family"`     // SHA-256 of the secret that all refresh tokens of the session share
	Token      []byte          `bson:"token"`      // SHA-256 of the secret of the newest refresh token
	Generation int             `bson:"generation"` // how often the session was refreshed
	Used       map[string]Used `bson:"used,omitempty"`
	CreatedAt  time.Time       `bson:"createdAt"`
	RotatedAt  time.Time       `bson:"rotatedAt"` // when the newest refresh token was made
	ExpiresAt  time.Time       `bson:"expiresAt"`

	Salt   []byte `bson:"-"` // of the exchange that Rotate returns
	Device string `bson:"-"` // digest of the device token given with it; stored with the account
}

// Used is a refresh token that was exchanged lately.
type Used struct {
	Token      []byte    `bson:"token"` // SHA-256 of its secret
	Salt       []byte    `bson:"salt"`  // made the next secret of it
	Generation int       `bson:"generation"`
	At         time.Time `bson:"at"`
}

// An Account is a user as a sign-in must see it.
type Account struct {
	User     `bson:",inline"`
	Password string `bson:"password"` // the hash, never the password

	DisabledAt *time.Time         `bson:"disabledAt,omitempty"`
	Sessions   map[string]Session `bson:"sessions"`
	Opened     int                `bson:"opened"` // sessions ever opened: the compare-and-set of EndOnRequest
	CreatedAt  time.Time          `bson:"createdAt"`

	Events      map[string]event.Event `bson:"events"`
	Undelivered time.Time              `bson:"undelivered"`
	Refused     map[string]Refused     `bson:"refused"`
	RetryAt     time.Time              `bson:"retryAt"`
	Handled     map[string]handled     `bson:"handled"`

	Devices map[string]time.Time `bson:"devices"`
}

// HasDevice reports whether a digest is that of a device token given with a sign-in to the
// account within DeviceTTL. A device token outlives its session. Earlier versions have stored
// digests of addresses in the same map; those are shorter, and no token has one.
func (a Account) HasDevice(device string, now time.Time) bool {
	at, known := a.Devices[device]
	return known && now.Sub(at) < DeviceTTL
}

// DeviceTTL is how long a device token is valid after a sign-in with it.
const DeviceTTL = 90 * 24 * time.Hour

const deviceLimit = 20 // of an account; the device longest without a sign-in is removed

// forgotten returns the devices to remove when one more is stored: expired ones and the
// oldest over the limit.
func (a Account) forgotten(device string, now time.Time) (devices []string) {
	others := slices.DeleteFunc(slices.Collect(maps.Keys(a.Devices)), func(d string) bool { return d == device })
	slices.SortFunc(others, func(x, y string) int { return cmp.Or(a.Devices[y].Compare(a.Devices[x]), cmp.Compare(x, y)) })
	for i, d := range others {
		if i >= deviceLimit-1 || !a.HasDevice(d, now) {
			devices = append(devices, d)
		}
	}
	return devices
}

// opened is an account as a sign-in left it: the members that bound its sessions and events.
type opened struct {
	ID       string
	Sessions map[string]sessionTimes
	Events   map[string]event.Event
}

type sessionTimes struct {
	RotatedAt time.Time `bson:"rotatedAt"`
	ExpiresAt time.Time `bson:"expiresAt"`
}

// openedOf reads a document. A session that cannot be read has no times, so it counts as
// expired; an event that cannot be read is left to the relay, which logs it. Neither keeps
// the owner from signing in.
func openedOf(id string, document bson.Raw) opened {
	o := opened{ID: id, Sessions: map[string]sessionTimes{}, Events: map[string]event.Event{}}
	for _, e := range elements(document, "sessions") {
		var times sessionTimes
		e.Value().Unmarshal(&times)
		o.Sessions[e.Key()] = times
	}
	for _, e := range elements(document, "events") {
		var stored event.Event
		if e.Value().Unmarshal(&stored) == nil {
			o.Events[e.Key()] = stored
		}
	}
	return o
}

func elements(document bson.Raw, member string) []bson.RawElement {
	embedded, _ := document.Lookup(member).DocumentOK()
	all, _ := embedded.Elements()
	return all
}

// expired returns the ids of the expired sessions.
func (o opened) expired(now time.Time) (sids []string) {
	for id, s := range o.Sessions {
		if !s.ExpiresAt.After(now) {
			sids = append(sids, id)
		}
	}
	return sids
}

// surplus returns the ids of the sessions over the limit, those longest without a refresh,
// but never the one that was just opened.
func (o opened) surplus(limit int, open string) []string {
	sids := slices.SortedFunc(maps.Keys(o.Sessions), func(x, y string) int {
		return cmp.Or(o.Sessions[x].RotatedAt.Compare(o.Sessions[y].RotatedAt), cmp.Compare(x, y))
	})
	sids = slices.DeleteFunc(sids, func(sid string) bool { return sid == open })
	return sids[:max(0, len(sids)-limit+1)]
}

// A Rotation asks to exchange the newest refresh token of a session for another.
type Rotation struct {
	User, Session string
	Generation    int    // of the token presented
	Family        []byte // SHA-256, as in Session
	Used          []byte // SHA-256 of the secret presented
	Token         []byte // SHA-256 of the secret that is to replace it
	Salt          []byte // made the one of the other
	ExpiresAt     time.Time
	MaxTTL        time.Duration // of the session, from its sign-in; 0: no limit
}
