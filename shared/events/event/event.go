// Package event is what the system tells others: that somebody signed up, signed
// in or out, as CloudEvents 1.0.
//
// An Event is written into the user's document together with the change it tells
// of, so it exists if and only if the change does. Then a Sink sends it, and it is
// forgotten when the sink has acknowledged it; what was not delivered stays where
// it is until the relay function delivers it. So every event arrives at least
// once, with the same id each time, and a consumer that remembers ids sees each
// once.
//
// No event holds a password, a hash or a token. Package user writes and forgets
// them; the events that other services send to us are the business of package
// cloudevents.
package event

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"
)

// A Sink is where events go. There is one, in package sink; it is an interface so
// that functions which tell nobody of anything do not link it.
type Sink interface {
	// Send sends an event and returns nil when it was acknowledged.
	Send(context.Context, Event) error
	// Timeout is the most that a person's request waits for the sink.
	Timeout() time.Duration
}

// ErrRefused is what Send returns where the sink will not take this event, however
// often it is sent.
var ErrRefused = errors.New("the sink refuses the event")

// Source is the source attribute of everything this system sends.
const Source = "/api/users"

// The types.
const (
	SignedUp  = "com.ticketing.user.signedup.v1"
	SignedIn  = "com.ticketing.user.signedin.v1"
	SignedOut = "com.ticketing.user.signedout.v1"
)

// Why a session ended.
const (
	ByUser     = "signout"   // its owner signed out
	OnRequest  = "requested" // another service asked for it
	Displaced  = "displaced" // its user opened more sessions than are kept
	TokenReuse = "theft"     // a refresh token was used twice
)

// An Event is one thing that happened to a user.
type Event struct {
	ID    string    `bson:"-"` // the key in the document's map
	Type  string    `bson:"type"`
	Time  time.Time `bson:"time"`            // whole milliseconds
	Trace string    `bson:"trace,omitempty"` // traceparent of the request that caused it
	Data  Data      `bson:"data"`
	Tries int       `bson:"tries,omitempty"` // failed deliveries by the relay
}

// Data is what an event says.
type Data struct {
	UserID    string `json:"userId" bson:"userId"`
	Email     string `json:"email,omitempty" bson:"email,omitempty"`
	SessionID string `json:"sessionId,omitempty" bson:"sessionId,omitempty"` // absent where an account was made without a session
	Reason    string `json:"reason,omitempty" bson:"reason,omitempty"`
}

// New returns an event with a new id of 128 random bits.
func New(kind string, at time.Time, trace string, data Data) Event {
	id := make([]byte, 16)
	rand.Read(id) // never fails (crypto/rand)
	return Event{ID: hex.EncodeToString(id), Type: kind, Time: at.UTC().Truncate(time.Millisecond), Trace: trace, Data: data}
}
