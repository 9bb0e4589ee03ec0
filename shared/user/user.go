// Package user is the user store over MongoDB: one user, one document.
//
//	users: { _id, email, password, verifiedAt?, roles?, language?, createdAt?, disabledAt?, opened?,
//	         sessions: { <sid>: { family, token, generation, used?: { <generation>: … },
//	                              createdAt, rotatedAt, expiresAt, agent?, place? } },
//	         changes?, history?: { <id>: { type, at, … } },
//	         pending?:   { <purpose>: { nonce, email, expiresAt } },
//	         confirmed?: { <purpose>: { nonce, email, expiresAt, at } },
//	         mailed?: { <purpose>: times }, undo?: { <nonce>: { email, at, expiresAt } },
//	         deletesAt?, erasedAt?, removeAt?,
//	         events:   { <id>:  { type, time, trace?, data, tries? } }, undelivered?,
//	         refused?: { <id>:  { type, time, trace?, data, tries, retryAt } }, retryAt?,
//	         handled:  { <key>: { at, ended } },
//	         ended?:   { <sid>: time }, endedBefore?, endedAt?,
//	         devices?: { <digest of a device token>: time of its last sign-in } }
//
// A user and all its sessions are ONE document. So every change of state is ONE atomic write
// without a transaction, on any MongoDB. "A write operation is atomic on the level of a single
// document" (MongoDB manual, Atomicity and Transactions).
//
// The filter of a write holds all its preconditions, even if an earlier read has already checked
// them. If the filters of two concurrent writes exclude each other, only one write matches. The
// matched count reports the failure of the other.
//
// Every read checks expiry. A sign-in removes expired sessions, and a refresh removes used
// refresh tokens. Both only free space.
//
// With a sink, each change also writes its event into the same document, by the same write (the
// outbox pattern, see package outbox): events, undelivered, refused and retryAt. handled holds
// the keys of received events that the store has processed.
//
// A write that ends sessions also records them, for services that verify tokens without the
// database (see Ended): ended, endedBefore and endedAt.
//
// An imported user is { _id, email, password }. All three are strings. The email has the form
// that package email returns. The first sign-in adds the other members.
//
// A change of the account, such as a new password, reads the document and writes with a
// compare-and-set (see Store.change). Sign-ins, refreshes and sign-outs write without that read.
//
// An erased account remains as a tombstone: its id, and the members that deliver its events and
// its ended sessions.
//
// The store uses only operations for which MongoDB and the embedded server return the same
// results. It translates the driver's errors. Callers see one of the errors below, or an
// apierror.Away if the database does not reply.
//
// The store hashes no password, creates no token and has no clock.
package user

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/outbox"
	"ticketing.com/auth/shared/reference"
)

// MaxID is the maximum length of a user id, in bytes. Each token of the user contains the id.
const MaxID = 128

var (
	// ErrDuplicate reports that another user has this email or this id. Not every server
	// distinguishes the two.
	ErrDuplicate = errors.New("the email is in use")
	// ErrNotFound reports that the user does not exist.
	ErrNotFound = errors.New("no such user")
	// ErrUnreadable reports that the stored account has a member of an unexpected type, or
	// an id over MaxID. The log names the user.
	ErrUnreadable = errors.New("the stored account cannot be read")
	// ErrChanged reports that the password or the state of the account has changed since it
	// was checked.
	ErrChanged = errors.New("the account has changed since it was read")
	// ErrSessionEnded reports that the session has expired or was revoked: by a sign-out, by
	// the session limit, or because its user was deleted or disabled.
	ErrSessionEnded = errors.New("the session has expired or was revoked")
	// ErrTokenReused reports that a client has presented a used refresh token, too late to be
	// the retry after a lost response. The store treats the token as stolen and revokes the
	// session (RFC 9700 section 4.14.2).
	ErrTokenReused = errors.New("the refresh token was already used: the session is revoked")
)

// A User is the public part of an account.
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

// A Profile is the part of an account that access tokens contain.
type Profile struct {
	User       `bson:",inline"`
	VerifiedAt *time.Time `bson:"verifiedAt,omitempty"` // the time at which the user proved control of the email
	Roles      Roles      `bson:"roles,omitempty"`
}

// Roles are the roles of a user. An operator writes them, so every value in the database can be
// read: Roles has at most 32 of its strings, of 1 to 64 bytes of UTF-8, and ignores the rest. So an
// access token stays short, and a wrong value does not lock the user out.
type Roles []string

const rolesLimit, roleLimit = 32, 64

// UnmarshalBSONValue implements bson.ValueUnmarshaler.
func (r *Roles) UnmarshalBSONValue(kind byte, data []byte) error {
	*r = nil
	array, _ := bson.RawValue{Type: bson.Type(kind), Value: data}.ArrayOK()
	values, _ := array.Values()
	for _, v := range values {
		role, ok := v.StringValueOK()
		if ok && 0 < len(role) && len(role) <= roleLimit && utf8.ValidString(role) && len(*r) < rolesLimit {
			*r = append(*r, role)
		}
	}
	return nil
}

// profileMembers is the projection of a Profile, without the id.
var profileMembers = bson.D{{Key: "email", Value: 1}, {Key: "verifiedAt", Value: 1}, {Key: "roles", Value: 1}}

// A Session is the record of one sign-in. It holds digests only, so an attacker with read access
// to the database cannot refresh a session.
type Session struct {
	ID string `bson:"-"` // the key in the document's map

	Family     []byte          `bson:"family"`     // SHA-256 of the secret that all refresh tokens of the session share
	Token      []byte          `bson:"token"`      // SHA-256 of the secret of the newest refresh token
	Generation int             `bson:"generation"` // number of refreshes of the session
	Used       map[string]Used `bson:"used,omitempty"`
	CreatedAt  time.Time       `bson:"createdAt"`
	RotatedAt  time.Time       `bson:"rotatedAt"` // time of the newest refresh token
	ExpiresAt  time.Time       `bson:"expiresAt"`

	Origin `bson:",inline"` // of the sign-in; empty in sessions of earlier versions
}

// An Origin describes the client of a request to the owner of the account. It authenticates nothing:
// the client can send a false one.
type Origin struct {
	Agent string `bson:"agent,omitempty" json:"agent,omitzero"` // the browser and the system, such as "Chrome on macOS"
	Place string `bson:"place,omitempty" json:"place,omitzero"` // the network: a /24 of IPv4 or a /48 of IPv6
}

// Used is a refresh token that was exchanged recently.
type Used struct {
	Token      []byte    `bson:"token"` // SHA-256 of its secret
	Salt       []byte    `bson:"salt"`  // the next secret derives from it
	Generation int       `bson:"generation"`
	At         time.Time `bson:"at"`
}

// An Account is the stored document of a user.
type Account struct {
	Profile  `bson:",inline"`
	Password string `bson:"password"` // the hash, never the password

	DisabledAt *time.Time         `bson:"disabledAt,omitempty"`
	Sessions   map[string]Session `bson:"sessions"`
	Opened     int                `bson:"opened"` // number of sessions ever opened, for the compare-and-set of change
	CreatedAt  time.Time          `bson:"createdAt"`
	Language   string             `bson:"language"` // of mails: a language tag (RFC 5646), or empty

	Changes   int                           `bson:"changes"` // number of calls of change, for its compare-and-set
	History   map[string]Entry              `bson:"history"`
	Pending   map[event.Purpose]Pending     `bson:"pending"`
	Confirmed map[event.Purpose]confirmed   `bson:"confirmed"`
	Mailed    map[event.Purpose][]time.Time `bson:"mailed"`
	Undo      map[string]Undo               `bson:"undo"`
	DeletesAt *time.Time                    `bson:"deletesAt,omitempty"`
	ErasedAt  *time.Time                    `bson:"erasedAt,omitempty"`

	Ended       map[string]time.Time `bson:"ended"`
	EndedBefore time.Time            `bson:"endedBefore"`
	EndedAt     time.Time            `bson:"endedAt"`

	outbox.Document `bson:",inline"`
	Handled         map[string]handled `bson:"handled"`

	Devices map[string]time.Time `bson:"devices"`
}

// HasDevice reports whether a device token with this digest was used for a sign-in to the account
// within DeviceTTL. A device token outlives its session. Earlier versions stored digests of
// addresses in the same map. Those are shorter, so no token matches them.
func (a Account) HasDevice(device string, now time.Time) bool {
	at, found := a.Devices[device]
	return found && now.Sub(at) < DeviceTTL
}

// DeviceTTL is the lifetime of a device token after the last sign-in with it.
const DeviceTTL = 90 * 24 * time.Hour

const deviceLimit = 20 // of an account; over it, the device with the oldest sign-in is removed

// staleDevices returns the devices to remove when one more is stored: the expired ones and the
// oldest ones over the limit.
func (a Account) staleDevices(device string, now time.Time) (devices []string) {
	others := oldestFirst(a.Devices, func(at time.Time) time.Time { return at })
	others = slices.DeleteFunc(others, func(d string) bool { return d == device })
	for i, d := range others {
		if i <= len(others)-deviceLimit || !a.HasDevice(d, now) {
			devices = append(devices, d)
		}
	}
	return devices
}

// oldestFirst returns the keys of a map in the order of the times of their values.
func oldestFirst[V any](all map[string]V, at func(V) time.Time) []string {
	return slices.SortedFunc(maps.Keys(all), func(x, y string) int {
		return cmp.Or(at(all[x]).Compare(at(all[y])), cmp.Compare(x, y))
	})
}

// opened is the state of an account after a sign-in. It has only the members that the limits need.
type opened struct {
	ID       string
	Sessions map[string]sessionTimes
	History  map[string]Entry
}

type sessionTimes struct {
	RotatedAt time.Time `bson:"rotatedAt"`
	ExpiresAt time.Time `bson:"expiresAt"`
}

// parseOpened parses a document. An unreadable session has no times, so it counts as expired.
// It does not prevent a sign-in of the owner.
func parseOpened(id string, document bson.Raw) opened {
	o := opened{ID: id, Sessions: map[string]sessionTimes{}, History: map[string]Entry{}}
	for _, e := range elements(document, "sessions") {
		var times sessionTimes
		e.Value().Unmarshal(&times)
		o.Sessions[e.Key()] = times
	}
	for _, e := range elements(document, "history") {
		var entry Entry
		e.Value().Unmarshal(&entry)
		o.History[e.Key()] = entry
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

// surplus returns the ids of the sessions over the limit. It selects those with the oldest
// refresh, but never the session that was just opened.
func (o opened) surplus(limit int, open string) []string {
	sids := oldestFirst(o.Sessions, func(s sessionTimes) time.Time { return s.RotatedAt })
	sids = slices.DeleteFunc(sids, func(sid string) bool { return sid == open })
	return sids[:max(0, len(sids)-limit+1)]
}

// An Exchange is the result of a Rotation.
type Exchange struct {
	Profile Profile
	Session Session // after the exchange
	Salt    []byte  // the new secret derives from it
}

// A Rotation is a request to exchange the newest refresh token of a session for another one.
type Rotation struct {
	User, Session string
	Generation    int    // of the token presented
	Family        []byte // SHA-256, as in Session
	Used          []byte // SHA-256 of the secret presented
	Token         []byte // SHA-256 of the secret that replaces it
	Salt          []byte // the new secret derives from it
	ExpiresAt     time.Time
	MaxTTL        time.Duration // of the session, from its sign-in; 0 means no limit
}
