package user

import (
	"context"
	"errors"
	"time"

	"ticketing.com/auth/shared/events/event"
)

// ErrNoSession reports that an account has no valid session with an id.
var ErrNoSession = errors.New("no such session")

// EndOthers ends all sessions of an account but that of the client, and returns their number. It
// returns ErrSessionEnded if that of the client is not valid.
func (s *Store) EndOthers(ctx context.Context, id, sid string, from Origin, now time.Time) (ended int, err error) {
	err = s.change(ctx, id, func(a Account) (*change, error) {
		if err := a.signedIn(sid, now); err != nil {
			return nil, err
		}
		others := a.others(sid, now)
		if ended = len(others); ended == 0 {
			return nil, nil
		}
		return &change{now: now, actor: sid, end: others, reason: event.ByUser, entry: Entry{Type: EntrySessionsEnded, At: now, Session: sid}.from(from)}, nil
	})
	return ended, sessionEnded(err)
}

// EndSession ends one session of an account, which can be that of the client. It returns ErrNoSession,
// or ErrSessionEnded if the session of the client is not valid.
func (s *Store) EndSession(ctx context.Context, id, sid, which string, from Origin, now time.Time) error {
	err := s.change(ctx, id, func(a Account) (*change, error) {
		if err := a.signedIn(sid, now); err != nil {
			return nil, err
		}
		if a.signedIn(which, now) != nil {
			return nil, ErrNoSession
		}
		return &change{now: now, actor: sid, end: []string{which}, reason: event.ByUser, entry: Entry{Type: EntrySignedOut, At: now, Session: which}.from(from)}, nil
	})
	return sessionEnded(err)
}
