package user

import (
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/reference"
)

// The types of the entries of a history.
const (
	EntrySignedUp          = "signedup"
	EntrySignedIn          = "signedin"
	EntrySignedOut         = "signedout"
	EntrySessionsEnded     = "sessionsended"
	EntryVerified          = "verified"
	EntryPasswordChanged   = "passwordchanged"
	EntryRecovered         = "recovered"
	EntryEmailRequested    = "emailchangerequested"
	EntryEmailChanged      = "emailchanged"
	EntryEmailUndone       = "emailchangeundone"
	EntryDeletionRequested = "deletionrequested"
	EntryRestored          = "restored"
)

// An Entry is an event of an account, for its owner. Only requests that have proved something are
// entries, so an attacker without credentials cannot displace them.
type Entry struct {
	Type    string    `bson:"type"              json:"type"`
	At      time.Time `bson:"at"                json:"at"`
	Session string    `bson:"session,omitempty" json:"sessionId,omitzero"`
	Reason  string    `bson:"reason,omitempty"  json:"reason,omitzero"` // why the session ended
	Agent   string    `bson:"agent,omitempty"   json:"agent,omitzero"`
	Place   string    `bson:"place,omitempty"   json:"place,omitzero"`
}

// from returns the entry with the origin of its request.
func (e Entry) from(o Origin) Entry {
	e.Agent, e.Place = o.Agent, o.Place
	return e
}

// Members implements reference.Described.
func (Entry) Members() []reference.Member {
	return []reference.Member{
		{Name: "type", About: "Such as signedin or passwordchanged. Later versions can add types."},
		{Name: "sessionId", Opaque: true, About: "The session of the event."},
		{Name: "reason", About: "Why the session ended, as in the event signedout."},
		{Name: "agent", About: "The browser and the system of the client, such as Chrome on macOS. The client can send a false one."},
		{Name: "place", About: "The network of the client, a /24 of IPv4 or a /48 of IPv6."},
	}
}

const (
	// HistoryLimit is the number of entries that the owner sees.
	HistoryLimit = 50
	// historySlack is the number of further entries in a document before a sign-in removes them.
	historySlack = 10
)

// historyMember returns a new entry under a path that ends with its id.
func historyMember(e Entry, path string) bson.E { return bson.E{Key: path + event.NewID(), Value: e} }

// oldestEntries returns the keys of the oldest entries, to remove when more are stored.
func oldestEntries(history map[string]Entry, more int) []string {
	keys := oldestFirst(history, func(e Entry) time.Time { return e.At })
	return keys[:max(0, len(keys)+more-HistoryLimit)]
}

// Entries returns the history of the account, the newest first.
func (a Account) Entries() []Entry {
	all := []Entry{}
	for _, key := range oldestFirst(a.History, func(e Entry) time.Time { return e.At }) {
		all = append(all, a.History[key])
	}
	slices.Reverse(all)
	return all[:min(len(all), HistoryLimit)]
}
