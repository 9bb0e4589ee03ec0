package user

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/outbox"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/telemetry"
)

// A change is one write of an account.
type change struct {
	now        time.Time
	set, unset bson.D
	email      string   // replaces that of the account, unless empty
	actor      string   // the session of the client, which must still be valid, or empty
	enabled    bool     // the account must not be disabled
	end        []string // the valid sessions to end
	reason     string   // why they end
	events     []published
	entry      Entry // of the history, unless its type is empty
}

// A published event is an event type with its payload.
type published struct {
	*event.Type
	payload any
}

// publish adds an event to the change.
func (c *change) publish(t *event.Type, payload any) {
	c.events = append(c.events, published{t, payload})
}

// clear removes a member of the document.
func (c *change) clear(members ...string) {
	for _, m := range members {
		c.unset = append(c.unset, bson.E{Key: m, Value: ""})
	}
}

// maxAttempts bounds the attempts of a compare-and-set while the account changes concurrently.
const maxAttempts = 16

// change reads an account, and writes the change that decide returns for it. If that is nil, it
// writes nothing. It returns the error of decide, or ErrNotFound. An erased account does not exist.
//
// The filter of the write holds that since the read no other change was written and no session was
// opened, and that the sessions to end and the session of the client exist. So of any number of concurrent changes, one matches; the
// others read again and decide again. One update contains the change, its events, the ended
// sessions and the entry of the history, so all of them are stored or none.
func (s *Store) change(ctx context.Context, id string, decide func(Account) (*change, error)) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	for range maxAttempts {
		a, err := s.AccountByID(ctx, id)
		if err == nil && a.ErasedAt != nil {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		c, err := decide(a)
		if c == nil || err != nil {
			return err
		}
		filter, update, events := s.compile(ctx, a, c)
		result, err := users.UpdateOne(ctx, filter, update)
		if err != nil {
			if c.email != "" && (mongo.IsDuplicateKeyError(err) || s.isTaken(ctx, c.email, id)) {
				return ErrDuplicate // without the driver's text: it quotes the email
			}
			return mongodb.Translate("change an account", err)
		}
		if result.MatchedCount == 1 {
			s.report(ctx, a.ID, c)
			s.outbox.Deliver(ctx, &outbox.Window{}, events)
			return nil
		}
	}
	return apierror.Busy(time.Second, errors.New("change an account: each attempt met a concurrent change"))
}

// report records a change for the operator.
func (s *Store) report(ctx context.Context, id string, c *change) {
	for range c.end {
		s.telemetry.Count(ctx, telemetry.SessionsEnded, c.reason)
	}
	for _, e := range c.events {
		switch e.Type {
		case event.PasswordChanged:
			telemetry.Note(ctx, telemetry.PasswordChanged)
			telemetry.NoteUser(ctx, id)
		case event.EmailChanged:
			telemetry.Note(ctx, telemetry.EmailChanged)
			telemetry.NoteUser(ctx, id)
		}
	}
}

// isTaken reports whether another user has an email. The embedded server reports the violation of a
// unique index by an update as an internal error, so the error alone does not tell.
func (s *Store) isTaken(ctx context.Context, email, id string) bool {
	other, err := s.Account(ctx, email)
	return err == nil && other.ID != id || errors.Is(err, ErrUnreadable)
}

// compile returns the filter, the update and the events of a change. The update also removes expired
// sessions and the oldest entries of the history.
func (s *Store) compile(ctx context.Context, a Account, c *change) (filter, update bson.D, events *outbox.Events) {
	filter = bson.D{{Key: "_id", Value: a.ID}, unchanged("changes", a.Changes), unchanged("opened", a.Opened)}
	set, unset, more := c.set, c.unset, bson.D{{Key: "$inc", Value: bson.D{{Key: "changes", Value: 1}}}}
	var ended []any
	if c.email != "" {
		set = append(set, bson.E{Key: "email", Value: c.email})
	}
	if c.actor != "" || c.enabled {
		filter = append(filter, enabled)
	}
	if c.actor != "" && !slices.Contains(c.end, c.actor) {
		filter = append(filter, bson.E{Key: session(c.actor), Value: bson.D{{Key: "$exists", Value: true}}})
	}
	for _, sid := range c.end {
		filter = append(filter, bson.E{Key: session(sid), Value: bson.D{{Key: "$exists", Value: true}}})
		unset = append(unset, bson.E{Key: session(sid), Value: ""})
		ended = append(ended, event.UserSignedOut{UserID: a.ID, SessionID: sid, Reason: c.reason})
	}
	for sid, open := range a.Sessions {
		if !open.ExpiresAt.After(c.now) {
			unset = append(unset, bson.E{Key: session(sid), Value: ""})
		}
	}
	if len(c.end) > 0 {
		records, latest := recorded(c.end, c.now)
		set, more = append(set, records...), append(more, latest...)
	}
	if c.entry.Type != "" {
		set = append(set, historyMember(c.entry, "history."))
		for _, old := range oldestEntries(a.History, 1) {
			unset = append(unset, bson.E{Key: "history." + old, Value: ""})
		}
	}
	events = s.outbox.Events(ctx, a.ID, event.SignedOut, ended...)
	for _, e := range c.events {
		events.Add(e.Type, e.payload)
	}
	unset = append(unset, s.outbox.Displace(a.Document, events)...)
	return filter, events.Update(set, unset, more), events
}

// unchanged matches an account whose counter has the value that was read. An imported user has no
// counters before the first sign-in.
func unchanged(member string, count int) bson.E {
	if count == 0 {
		return bson.E{Key: member, Value: bson.D{{Key: "$in", Value: bson.A{nil, 0}}}}
	}
	return bson.E{Key: member, Value: count}
}

// validSessions returns the id sid if that session is valid, or the ids of all valid sessions if
// sid is empty.
func (a Account) validSessions(sid string, now time.Time) (sids []string) {
	for id, s := range a.Sessions {
		if s.ExpiresAt.After(now) && (sid == "" || sid == id) {
			sids = append(sids, id)
		}
	}
	slices.Sort(sids)
	return sids
}

// others returns the ids of the valid sessions except one.
func (a Account) others(sid string, now time.Time) []string {
	return slices.DeleteFunc(a.validSessions("", now), func(id string) bool { return id == sid })
}

// signedIn returns nil if a session of the account is valid, and ErrSessionEnded otherwise.
func (a Account) signedIn(sid string, now time.Time) error {
	found, exists := a.Sessions[sid]
	if !exists || a.DisabledAt != nil || a.ErasedAt != nil || !found.ExpiresAt.After(now) {
		return ErrSessionEnded
	}
	return nil
}

// SignedIn returns the whole account of a valid session, or ErrSessionEnded.
func (s *Store) SignedIn(ctx context.Context, id, sid string, now time.Time) (Account, error) {
	a, err := s.AccountByID(ctx, id)
	if err == nil {
		err = a.signedIn(sid, now)
	}
	if errors.Is(err, ErrNotFound) {
		err = ErrSessionEnded
	}
	return a, err
}
