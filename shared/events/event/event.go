// Package event defines event types, and the events that this system publishes about users:
// a user signed up, signed in or signed out. All are CloudEvents 1.0.
//
// A package declares the types of its events with Define. A function lists the types that it
// publishes and takes, and the event reference and the JSON schemas are generated from that.
//
// The events are delivered by a transactional outbox. The write that changes a user's
// document also stores the Event there, so either both exist or neither does. Then a Sink
// sends the event, and its acknowledgment deletes it from the document. The relay function
// delivers the events that remain. So each event arrives at least once, always with the
// same ID, and a consumer can drop duplicates by ID.
//
// No event contains a password, a hash or a token. Package user stores and deletes the
// events. Package receiver handles the events that other services send.
package event

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"
)

// A Sink receives events. Package sender has the only implementation. It is an interface so
// that functions without events do not link package sender.
type Sink interface {
	// Send sends an event. It returns nil after the sink has acknowledged the event.
	Send(context.Context, Event) error
	// Timeout returns the maximum time that a client's request waits for the sink.
	Timeout() time.Duration
}

// ErrRefused is the error of Send for an event that the sink rejects permanently.
var ErrRefused = errors.New("the sink refuses the event")

// An Event is one change to a user.
type Event struct {
	ID    string    `bson:"-"` // the key in the map of the document
	Type  string    `bson:"type"`
	Time  time.Time `bson:"time"`            // whole milliseconds
	Trace string    `bson:"trace,omitempty"` // traceparent of the request that caused it
	Data  Data      `bson:"data"`
	Tries int       `bson:"tries,omitempty"` // failed deliveries by the relay
}

// Data is the data of an event of any type. It has the members of UserSignedUp, UserSignedIn
// and UserSignedOut.
type Data struct {
	UserID    string `json:"userId" bson:"userId"`
	Email     string `json:"email,omitempty" bson:"email,omitempty"`
	SessionID string `json:"sessionId,omitempty" bson:"sessionId,omitempty"` // absent if the account was created without a session
	Reason    string `json:"reason,omitempty" bson:"reason,omitempty"`
}

// New returns an event with a new id of 128 random bits.
func New(t *Type, at time.Time, trace string, data Data) Event {
	id := make([]byte, 16)
	rand.Read(id) // never fails (crypto/rand)
	return Event{ID: hex.EncodeToString(id), Type: t.Name, Time: at.UTC().Truncate(time.Millisecond), Trace: trace, Data: data}
}
