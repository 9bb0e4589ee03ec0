package bearer

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"ticketing.com/auth/shared/bearer/revocation"
)

const (
	maxAnswer     = 16 << 20         // bytes
	pollGap       = 5 * time.Second  // between the starts of two requests
	maxDelay      = 7 * time.Second  // until a sign-out is refused
	strictMaxAge  = 30 * time.Second // of the copy, with REVOCATIONS_STRICT=on
	maxRevoked    = 1 << 18          // sessions and users in the copy
	maxFilterSize = 16 << 20         // bytes of all filters in the copy
)

// A feed is a copy of the revocation feed. A request that finds the copy older than pollGap fetches
// the entries since then and waits for them. The requests beside it use the copy until it is
// maxDelay old.
//
// While the feed does not answer, one request in retryDelay tries it. The others do not wait.
type feed struct {
	fetch         func(ctx context.Context, cursor string) (answer *revocation.Answer, age time.Duration, err error)
	introspection *introspection
	strict        bool
	now           func() time.Time

	mu      sync.Mutex
	revoked *revoked
	cursor  string // of the next request; "" asks for all entries
	window  time.Duration
	asOf    time.Time // the copy has every entry before this time; zero without a copy
	next    time.Time // the earliest start of the next request
	flight  *flight   // the request in flight, or nil
	outage  outage
}

// check returns an error for a token that was revoked. With strict it also returns one if the feed
// has not answered for strictMaxAge.
func (f *feed) check(ctx context.Context, raw string, claims Claims) error {
	if err := f.refresh(ctx); err != nil {
		return unavailable(err)
	}
	f.mu.Lock()
	now := f.now()
	if f.strict && f.age(now) > strictMaxAge {
		f.mu.Unlock()
		return unavailable(errors.New("the copy of the revocation feed is older than 30 s"))
	}
	state := f.revoked.find(claims, now)
	f.mu.Unlock()
	switch state {
	case ended:
		return invalidToken(errRevoked)
	case unsure:
		active, err := f.introspection.active(ctx, raw, claims.ExpiresAt)
		if ctx.Err() != nil || err != nil && f.strict {
			return unavailable(err)
		}
		if err == nil && !active {
			return invalidToken(errRevoked)
		}
	}
	return nil
}

// refresh brings the copy up to date. Its error is the error of ctx.
func (f *feed) refresh(ctx context.Context) error {
	f.mu.Lock()
	now := f.now()
	age := f.age(now)
	wait := age >= maxDelay && !f.outage.lasts(now) || f.strict && age > strictMaxAge
	if f.flight == nil && !now.Before(f.next) {
		wait = true
		cursor := f.cursor
		if age > f.window {
			cursor = "" // every entry of the copy has expired
		}
		f.next = now.Add(pollGap)
		f.flight = fly(ctx, func(ctx context.Context) error { return f.poll(ctx, cursor, now) })
	}
	running := f.flight
	f.mu.Unlock()
	if wait && running != nil {
		running.wait(ctx)
		return ctx.Err()
	}
	return nil
}

// age returns the age of the copy.
func (f *feed) age(now time.Time) time.Duration {
	if f.asOf.IsZero() {
		return time.Duration(1<<63 - 1)
	}
	return now.Sub(f.asOf)
}

func (f *feed) poll(ctx context.Context, cursor string, start time.Time) error {
	answer, age, err := f.fetch(ctx, cursor)
	if status, ok := err.(statusError); ok && cursor != "" && (status == http.StatusBadRequest || status == http.StatusGone) {
		cursor = "" // the feed does not know the cursor any more
		answer, age, err = f.fetch(ctx, cursor)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		err = f.store(answer, cursor == "", start.Add(-age))
	}
	if err != nil {
		f.next = f.now().Add(retryDelay)
	}
	f.flight = nil
	f.outage.record(err, f.now())
	return err
}

// store adds an answer to the copy, or replaces the copy with a full answer. If the copy is too
// large, or has a filter of a part of the window, the next request asks for a full answer, which has a filter in place of many sessions.
func (f *feed) store(answer *revocation.Answer, full bool, asOf time.Time) error {
	next, cursor, window := f.revoked, answer.Cursor, time.Duration(answer.Window)*time.Second
	if full {
		next = newRevoked()
	}
	now := f.now()
	next.drop(now)
	next.add(answer, now.Add(window))
	if next.tooLarge() {
		if full {
			return errors.New("the answer has too many entries")
		}
		cursor = ""
	}
	if answer.Filter != nil && !full {
		cursor = "" // the filter of one full answer contains fewer other sessions than many filters
	}
	f.revoked, f.cursor, f.window, f.asOf = next, cursor, window, asOf
	return nil
}

// feedURL returns a function that fetches an answer. A cache between the service and the feed adds
// the header Age.
func feedURL(client *http.Client, base *url.URL) func(context.Context, string) (*revocation.Answer, time.Duration, error) {
	return func(ctx context.Context, cursor string) (*revocation.Answer, time.Duration, error) {
		target := *base
		if cursor != "" {
			query := target.Query()
			query.Set("since", cursor)
			target.RawQuery = query.Encode()
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
		if err != nil {
			return nil, 0, errors.New("the URL is not valid")
		}
		header, body, err := send(client, r, maxAnswer)
		if err != nil {
			return nil, 0, err
		}
		answer, err := revocation.Parse(body)
		seconds, _ := strconv.ParseUint(header.Get("Age"), 10, 16)
		return answer, time.Duration(seconds) * time.Second, err
	}
}

// The states of a token in the copy of the feed.
type state int

const (
	notEnded state = iota
	ended
	unsure // a filter contains the session
)

// revoked is a bounded set of sessions and users. It stores an entry for the window of the feed
// after the entry arrived: then every token of the session has expired.
type revoked struct {
	sessions map[string]time.Time // until when an entry is stored
	users    map[string]userEntry
	batches  []batch // in the order of arrival
	size     int     // bytes of all filters
}

type userEntry struct {
	before int64 // a NumericDate
	until  time.Time
}

// A batch is the entries that one answer added.
type batch struct {
	until    time.Time
	sessions []string
	users    []string
	filter   *revocation.Filter // or nil
}

func newRevoked() *revoked {
	return &revoked{sessions: map[string]time.Time{}, users: map[string]userEntry{}}
}

// add adds the entries of an answer. An answer repeats entries of earlier ones. They are stored from
// their first arrival.
func (r *revoked) add(answer *revocation.Answer, until time.Time) {
	b := batch{until: until, filter: answer.Filter}
	for _, id := range answer.Sessions {
		if _, known := r.sessions[id]; !known {
			r.sessions[id] = until
			b.sessions = append(b.sessions, id)
		}
	}
	for _, u := range answer.Users {
		if u.Before > r.users[u.ID].before {
			r.users[u.ID] = userEntry{u.Before, until}
			b.users = append(b.users, u.ID)
		}
	}
	if b.filter != nil {
		r.size += b.filter.Size()
	}
	if len(b.sessions)+len(b.users) > 0 || b.filter != nil {
		r.batches = append(r.batches, b)
	}
}

// drop removes the entries that are no longer stored. A user may have a later entry.
func (r *revoked) drop(now time.Time) {
	for len(r.batches) > 0 && !now.Before(r.batches[0].until) {
		b := r.batches[0]
		for _, id := range b.sessions {
			delete(r.sessions, id)
		}
		for _, id := range b.users {
			if !now.Before(r.users[id].until) {
				delete(r.users, id)
			}
		}
		if b.filter != nil {
			r.size -= b.filter.Size()
		}
		r.batches[0] = batch{} // frees the entries
		r.batches = r.batches[1:]
	}
}

func (r *revoked) tooLarge() bool {
	entries := len(r.sessions) + len(r.users)
	return entries > maxRevoked || r.size > maxFilterSize
}

func (r *revoked) find(claims Claims, now time.Time) state {
	if until, ok := r.sessions[claims.Session]; ok && now.Before(until) {
		return ended
	}
	if u, ok := r.users[claims.Subject]; ok && now.Before(u.until) && claims.IssuedAt.Unix() < u.before {
		return ended
	}
	for _, b := range r.batches {
		if b.filter != nil && now.Before(b.until) && b.filter.Contains(claims.Session) {
			return unsure
		}
	}
	return notEnded
}
