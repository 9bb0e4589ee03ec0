// Package event defines event types, and the events that this system publishes about users:
// a user signed up, signed in or signed out. All are CloudEvents 1.0.
//
// A package declares the types of its events with Define. A function lists the types that it
// publishes and takes, and the event reference and the JSON schemas are generated from that.
//
// No event contains a password, a hash or a token. Package outbox stores and delivers the
// events, package sender sends them. Package receiver handles the events that other services
// send.
package event

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"
)

// A Sink receives events. Package sender implements it for K_SINK, and package inprocess for
// receivers in the same process.
type Sink interface {
	// Takes reports whether the sink receives events of a type. Other events are not stored.
	Takes(*Type) bool
	// Send sends an event. It returns nil after the sink has acknowledged the event.
	Send(context.Context, Event) error
	// Timeout returns the maximum time that a client's request waits for the sink.
	Timeout() time.Duration
}

// ErrRefused is the error of Send for an event that the sink rejects permanently.
var ErrRefused = errors.New("the sink refuses the event")

// An Event is one published event.
type Event struct {
	ID, Type, Source string
	Subject          string    // the id of the resource; sent as the partition key, which keeps its events in order
	Time             time.Time // whole milliseconds
	Trace            string    // traceparent of the request that caused it, or ""
	Data             any       // a value of the type's payload, or its JSON as a jsontext.Value
}

// NewID returns an event id of 128 random bits.
func NewID() string {
	id := make([]byte, 16)
	rand.Read(id) // never fails (crypto/rand)
	return hex.EncodeToString(id)
}
