package user

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/outbox"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/telemetry"
)

// For ReplayWindow, a used refresh token receives the result of its exchange again. If no client
// has presented its successor, the response was probably lost, and LostAnswerWindow applies.
// After that the token counts as stolen (RFC 9700 section 4.14.2).
const (
	ReplayWindow     = 10 * time.Second
	LostAnswerWindow = 2 * time.Minute
)

// A Config is the configuration of a Store.
type Config struct {
	Database *mongodb.Connection
	Sessions int        // maximum number of sessions of a user
	Sink     event.Sink // receives the events; if nil, the store writes none
	Now      func() time.Time
	Log      *slog.Logger

	Telemetry *telemetry.Telemetry
}

// A Store stores users. It is safe for concurrent use.
type Store struct {
	database  *mongodb.Connection
	sessions  int
	outbox    *outbox.Outbox
	telemetry *telemetry.Telemetry
}

// New returns a store with the configuration. It does not connect to the database.
func New(c Config) *Store {
	s := &Store{database: c.Database, sessions: c.Sessions, telemetry: c.Telemetry}
	s.outbox = outbox.New(outbox.Config{
		Collection: s.users, Sink: c.Sink, Now: c.Now, Log: c.Log, Telemetry: c.Telemetry,
		// the end of a session comes before the start of another
		Types:      Published,
		Expendable: []*event.Type{event.SignedIn, event.SignedOut},
	})
	return s
}

// Published lists the types of the events that the store publishes, in the order of events with the same
// time.
var Published = []*event.Type{event.SignedUp, event.PasswordChanged, event.EmailChanged, event.Verified, event.DeletionRequested,
	event.SignedOut, event.SignedIn, event.UserDeleted, event.MailRequested}

// Outbox returns the outbox of the users, for the relay.
func (s *Store) Outbox() *outbox.Outbox { return s.outbox }

// Mails reports whether something takes the requests for mails: a sink, or function mail in this process.
func (s *Store) Mails() bool { return s.outbox.Sink != nil && s.outbox.Sink.Takes(event.MailRequested) }

func (s *Store) users(ctx context.Context) (*mongo.Collection, error) {
	return s.database.Collection(ctx, Collection)
}

// Prepare prepares the collection (see mongodb.Prepare).
func (s *Store) Prepare(ctx context.Context) error {
	return mongodb.Prepare(ctx, s.database, s.outbox.Now(), s.outbox.Log, Collection)
}

// A Registration is a new account.
type Registration struct {
	User
	Password string   // the hash
	First    *Session // may be nil
	Device   string   // the digest of the device token of the sign-up, or empty
	Language string   // of mails, or empty
	Verify   bool     // requests the mail that verifies the email
}

// Create adds a user. It returns ErrDuplicate if a user has this email or this id.
//
// Create is one insert. Of any number of concurrent sign-ups with one email, the unique index
// accepts one. If the process is killed, the database has a complete user or none.
func (s *Store) Create(ctx context.Context, r Registration) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	now := s.outbox.Now()
	a := Account{Profile: Profile{User: r.User}, Language: r.Language}
	signedUp, entry := event.UserSignedUp{UserID: r.ID, Email: r.Email}, Entry{Type: EntrySignedUp, At: now}
	document := bson.D{
		{Key: "_id", Value: r.ID},
		{Key: "email", Value: r.Email},
		{Key: "password", Value: r.Password},
		{Key: "createdAt", Value: now},
	}
	if r.Language != "" {
		document = append(document, bson.E{Key: "language", Value: r.Language})
	}
	if r.First != nil {
		document = append(document, bson.E{Key: "opened", Value: 1}, bson.E{Key: "sessions", Value: bson.D{{Key: r.First.ID, Value: *r.First}}})
		if r.Device != "" {
			document = append(document, bson.E{Key: "devices", Value: bson.D{{Key: r.Device, Value: r.First.CreatedAt}}})
		}
		signedUp.SessionID, entry.Session = r.First.ID, r.First.ID
		entry = entry.from(r.First.Origin)
	}
	document = append(document, bson.E{Key: "history", Value: bson.D{historyMember(entry, "")}})
	events := s.outbox.Events(ctx, r.ID, event.SignedUp, signedUp)
	if r.Verify {
		p := newPending(r.Email, now, verificationTTL)
		document = append(document,
			bson.E{Key: "pending", Value: map[event.Purpose]Pending{event.Verification: p}},
			bson.E{Key: "mailed", Value: map[event.Purpose][]time.Time{event.Verification: {now}}})
		events.Add(event.MailRequested, a.mail(event.RequestedMail{To: r.Email, Purpose: event.Verification, Nonce: p.Nonce, ExpiresAt: p.ExpiresAt}, now))
	}
	_, err = users.InsertOne(ctx, append(document, events.Members()...))
	if mongo.IsDuplicateKeyError(err) {
		return ErrDuplicate // without the driver's text: it quotes the email
	}
	if err != nil {
		return mongodb.Translate("create a user", err)
	}
	s.outbox.Deliver(ctx, &outbox.Window{}, events)
	return nil
}

// Account returns the credentials of an account by its email. It reads no sessions and no events,
// so the time of a sign-in does not depend on their number. It returns ErrNotFound, or
// ErrUnreadable for a document with an unexpected type or with an id over MaxID.
func (s *Store) Account(ctx context.Context, email string) (Account, error) {
	a, err := s.account(ctx, bson.D{{Key: "email", Value: email}}, options.FindOne().SetProjection(append(slices.Clip(profileMembers),
		bson.E{Key: "password", Value: 1}, bson.E{Key: "disabledAt", Value: 1},
		bson.E{Key: "createdAt", Value: 1}, bson.E{Key: "devices", Value: 1}, bson.E{Key: "ended", Value: 1},
		bson.E{Key: "deletesAt", Value: 1}, bson.E{Key: "language", Value: 1},
	)))
	if err == nil && (a.ID == "" || len(a.ID) > MaxID || !utf8.ValidString(a.ID)) {
		s.outbox.Log.ErrorContext(ctx, "an account cannot have sessions: its id must have 1 to 128 bytes of UTF-8", "user", a.ID)
		return Account{}, fmt.Errorf("find an account: %w", ErrUnreadable)
	}
	return a, err
}

// AccountByID returns the whole account of a user id. It returns ErrNotFound or ErrUnreadable as
// Account does.
func (s *Store) AccountByID(ctx context.Context, id string) (Account, error) {
	return s.account(ctx, bson.D{{Key: "_id", Value: id}}, options.FindOne())
}

func (s *Store) account(ctx context.Context, filter bson.D, projection *options.FindOneOptionsBuilder) (Account, error) {
	users, err := s.users(ctx)
	if err != nil {
		return Account{}, err
	}
	found := users.FindOne(ctx, filter, projection)
	var a Account
	err = mongodb.Read(found, &a)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return a, ErrNotFound
	}
	if errors.Is(err, mongodb.ErrUnreadable) {
		raw, _ := found.Raw()
		s.outbox.Log.ErrorContext(ctx, "a stored account cannot be read", "user", idText(raw), "error", err)
		return Account{}, fmt.Errorf("find an account: %w", ErrUnreadable)
	}
	return a, mongodb.Translate("find an account", err)
}

// idText returns the id of a document for the log. The id may have any type.
func idText(document bson.Raw) string {
	id := document.Lookup("_id")
	if s, ok := id.StringValueOK(); ok {
		return s
	}
	return id.String()
}

// Open adds a session to an account after its password was verified. If rehash is not empty, it
// replaces the hash of the password. The device is the digest of the device token of the sign-in,
// or empty. Open returns ErrChanged if the password or the account has changed since the check: the
// filter holds both.
//
// Over the limit of sessions, Open then ends those with the oldest refresh. The write returns the
// new document. So the last of any concurrent sign-ins sees all their sessions and enforces the
// limit. Each surplus session ends by one write, so each has one event. Expired sessions are
// removed without an event.
func (s *Store) Open(ctx context.Context, a Account, open Session, device, rehash string) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	set := bson.D{{Key: session(open.ID), Value: open}, historyMember(Entry{Type: EntrySignedIn, At: open.CreatedAt, Session: open.ID}.from(open.Origin), "history.")}
	if rehash != "" {
		set = append(set, bson.E{Key: "password", Value: rehash})
	}
	var unset bson.D
	if device != "" {
		set = append(set, bson.E{Key: "devices." + device, Value: open.CreatedAt})
		for _, stale := range a.staleDevices(device, open.CreatedAt) {
			unset = append(unset, bson.E{Key: "devices." + stale, Value: ""})
		}
	}
	more := bson.D{{Key: "$inc", Value: bson.D{{Key: "opened", Value: 1}}}}
	stale, before := a.staleEnded(open.CreatedAt)
	for _, sid := range stale {
		unset = append(unset, bson.E{Key: "ended." + sid, Value: ""})
	}
	if !before.IsZero() {
		more = append(more, bson.E{Key: "$max", Value: bson.D{{Key: "endedBefore", Value: before}}})
	}
	events := s.outbox.Events(ctx, a.ID, event.SignedIn, event.UserSignedIn{UserID: a.ID, Email: a.Email, SessionID: open.ID})
	if device != "" && len(a.Devices) > 0 && !a.HasDevice(device, open.CreatedAt) && open.CreatedAt.Sub(a.CreatedAt) > noticeAfter {
		events.Add(event.MailRequested, a.mail(event.RequestedMail{To: a.Email, Purpose: event.NewDevice, Agent: open.Agent, Place: open.Place}, open.CreatedAt))
	}
	document, err := users.FindOneAndUpdate(ctx,
		bson.D{{Key: "_id", Value: a.ID}, {Key: "password", Value: a.Password}, enabled, {Key: "deletesAt", Value: nil}},
		events.Update(set, unset, more),
		options.FindOneAndUpdate().SetReturnDocument(options.After)).Raw() // no projection: the embedded server does not support it here
	if errors.Is(err, mongo.ErrNoDocuments) {
		return ErrChanged
	}
	if server, is := errors.AsType[mongo.ServerError](err); is && (server.HasErrorCode(pathNotViable) || server.HasErrorCode(typeMismatch)) {
		// without the driver's text: it quotes the document
		s.outbox.Log.ErrorContext(ctx, "a stored account cannot be read", "user", a.ID, "error", "the update does not fit the type of a member")
		return ErrUnreadable
	}
	if err != nil {
		return mongodb.Translate("open a session", err)
	}
	after := parseOpened(a.ID, document)
	w := &outbox.Window{}
	delivered := s.outbox.Deliver(ctx, w, events)
	s.outbox.Trim(ctx, a.ID, document, delivered)
	s.limitSessions(ctx, w, users, after, open)
	return nil
}

// noticeAfter is the age of an account from which a sign-in from a new device is notified. A retry of a
// sign-up, after its answer was lost, has no device token.
const noticeAfter = 10 * time.Minute

// The error codes of an update that does not fit the types in the document.
const pathNotViable, typeMismatch = 28, 14

// limitSessions removes the expired sessions and the oldest entries of the history of an account, and
// ends the sessions over the limit. It only
// logs a failure: the new session is valid, and the next sign-in retries.
func (s *Store) limitSessions(ctx context.Context, w *outbox.Window, users *mongo.Collection, after opened, open Session) {
	var stale bson.D
	for _, sid := range after.expired(open.CreatedAt) {
		stale = append(stale, bson.E{Key: session(sid), Value: ""})
		delete(after.Sessions, sid)
	}
	if len(after.History) > HistoryLimit+historySlack {
		for _, old := range oldestEntries(after.History, 0) {
			stale = append(stale, bson.E{Key: "history." + old, Value: ""})
		}
	}
	if stale != nil {
		_, err := users.UpdateOne(ctx, bson.D{{Key: "_id", Value: after.ID}}, bson.D{{Key: "$unset", Value: stale}})
		if err != nil {
			s.outbox.Log.WarnContext(ctx, "expired sessions and old entries were not removed", "error", err)
		}
	}
	for _, sid := range after.surplus(s.sessions, open.ID) {
		if err := s.end(ctx, w, bson.D{{Key: "_id", Value: after.ID}}, after.ID, sid, event.Displaced); err != nil {
			s.outbox.Log.WarnContext(ctx, "a session over the limit was not ended", "error", err)
		}
	}
}

// Session returns the user of a valid session, or ErrSessionEnded.
//
// It reads from the primary with read concern majority, so it sees every sign-out that was
// acknowledged before. The exception is a replaced primary that has not detected its replacement
// yet, for some seconds. A linearizable read would avoid that, but every read would cost as much
// as a write.
func (s *Store) Session(ctx context.Context, id, sid string, now time.Time) (User, error) {
	p, _, err := s.valid(ctx, id, sid, bson.D{{Key: session(sid) + ".expiresAt", Value: 1}, {Key: "email", Value: 1}}, now)
	return p.User, err
}

// valid returns the profile of a user and one of its sessions with the members of a projection. It returns
// ErrSessionEnded if the session does not exist or has expired, or if the user is disabled.
//
// The filter holds the id only, and valid checks the rest. So it is one indexed read on MongoDB,
// and the embedded server has an index for this filter only.
func (s *Store) valid(ctx context.Context, id, sid string, projection bson.D, now time.Time) (Profile, Session, error) {
	if !isSessionID(sid) {
		return Profile{}, Session{}, ErrSessionEnded
	}
	users, err := s.users(ctx)
	if err != nil {
		return Profile{}, Session{}, err
	}
	var a Account
	err = mongodb.Read(users.FindOne(ctx, bson.D{{Key: "_id", Value: id}},
		options.FindOne().SetProjection(append(projection, bson.E{Key: "disabledAt", Value: 1}))), &a)
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		return Profile{}, Session{}, mongodb.Translate("find a session", err)
	}
	found, exists := a.Sessions[sid]
	if !exists || a.DisabledAt != nil || !found.ExpiresAt.After(now) {
		return Profile{}, Session{}, ErrSessionEnded
	}
	return a.Profile, found, nil
}

// End ends a session. It returns nil if the session does not exist or has already ended.
func (s *Store) End(ctx context.Context, id, sid string) error {
	if !isSessionID(sid) {
		return nil
	}
	return s.end(ctx, &outbox.Window{}, bson.D{{Key: "_id", Value: id}}, id, sid, event.ByUser)
}

// end ends a session of the user that the filter matches, and delivers the event. If the session
// does not exist, it writes no event.
func (s *Store) end(ctx context.Context, w *outbox.Window, filter bson.D, id, sid, reason string) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	events := s.outbox.Events(ctx, id, event.SignedOut, event.UserSignedOut{UserID: id, SessionID: sid, Reason: reason})
	now := s.outbox.Now()
	set, more := recorded([]string{sid}, now)
	set = append(set, historyMember(Entry{Type: EntrySignedOut, At: now, Session: sid, Reason: reason}, "history."))
	result, err := users.UpdateOne(ctx,
		append(filter, bson.E{Key: session(sid), Value: bson.D{{Key: "$exists", Value: true}}}),
		events.Update(set, bson.D{{Key: session(sid), Value: ""}}, more))
	if err != nil {
		return mongodb.Translate("end a session", err)
	}
	if result.MatchedCount == 1 {
		s.telemetry.Count(ctx, telemetry.SessionsEnded, reason)
		s.outbox.Deliver(ctx, w, events)
	}
	return nil
}

// Rotate exchanges a refresh token. Within ReplayWindow
// or LostAnswerWindow, a used token returns the result of its earlier exchange, even if later
// exchanges followed. After that it ends the session, and Rotate returns ErrTokenReused. For an
// expired, revoked or forged token, Rotate returns ErrSessionEnded.
//
// Rotate reads the session and then writes with a compare-and-set on the newest secret. Of any
// number of concurrent exchanges of one token, one write matches. The others read again, find a
// recently used token and return the same result.
//
// A token without the session's family secret was never issued, so it changes nothing. Otherwise
// an attacker with the id of a session could end the session.
func (s *Store) Rotate(ctx context.Context, r Rotation, now time.Time) (Exchange, error) {
	rotated, outcome, err := s.rotate(ctx, r, now)
	switch {
	case err == nil:
	case errors.Is(err, ErrTokenReused):
		outcome = "reused"
		telemetry.Note(ctx, telemetry.SessionStolen)
		telemetry.NoteUser(ctx, r.User)
	case errors.Is(err, ErrSessionEnded):
		outcome = "rejected"
	default:
		outcome = "unavailable"
	}
	s.telemetry.Count(ctx, telemetry.Refreshes, outcome)
	return rotated, err
}

// rotate does the work of Rotate. It returns the outcome of an exchange without an error.
func (s *Store) rotate(ctx context.Context, r Rotation, now time.Time) (exchange Exchange, outcome string, err error) {
	for range maxAttempts {
		p, found, err := s.issued(ctx, r, now)
		if err != nil {
			return Exchange{}, "", err
		}
		used, replayed := found.replay(r, now)
		if replayed {
			return found.exchanged(p, r.Session, used), "replayed", nil
		}
		if !found.newest(r) {
			return Exchange{}, "", s.endStolen(ctx, r)
		}
		rotated, matched, err := s.exchange(ctx, r, p, found, now)
		if matched || err != nil {
			return rotated, "rotated", err
		}
	}
	return Exchange{}, "", apierror.Busy(time.Second, errors.New("rotate a refresh token: each attempt met a concurrent change of the session"))
}

// Issued returns nil for a refresh token that was issued for a valid session, even if it is not
// the newest one, and ErrSessionEnded otherwise. It changes nothing.
func (s *Store) Issued(ctx context.Context, r Rotation, now time.Time) error {
	_, _, err := s.issued(ctx, r, now)
	return err
}

// issued returns the valid session for which a refresh token was issued, or ErrSessionEnded.
func (s *Store) issued(ctx context.Context, r Rotation, now time.Time) (Profile, Session, error) {
	p, found, err := s.valid(ctx, r.User, r.Session, append(slices.Clip(profileMembers), bson.E{Key: session(r.Session), Value: 1}), now)
	if err == nil && !bytes.Equal(found.Family, r.Family) {
		err = ErrSessionEnded
	}
	return p, found, err
}

// exchange replaces the newest refresh token of a session. It also removes the used ones that can
// no longer be replayed. It returns false if a concurrent write has changed the session.
func (s *Store) exchange(ctx context.Context, r Rotation, p Profile, found Session, now time.Time) (Exchange, bool, error) {
	users, err := s.users(ctx)
	if err != nil {
		return Exchange{}, false, err
	}
	expires := r.ExpiresAt
	if end := found.CreatedAt.Add(r.MaxTTL); r.MaxTTL > 0 && end.Before(expires) {
		expires = end
	}
	if !expires.After(now) {
		return Exchange{}, false, ErrSessionEnded
	}
	at := session(r.Session)
	used := Used{Token: r.Used, Salt: r.Salt, Generation: r.Generation, At: now}
	change := bson.D{{Key: "$set", Value: bson.D{
		{Key: at + ".token", Value: r.Token},
		{Key: at + ".generation", Value: r.Generation + 1},
		{Key: at + ".rotatedAt", Value: now},
		{Key: at + ".expiresAt", Value: expires},
		{Key: at + ".used." + strconv.Itoa(r.Generation), Value: used},
	}}}
	var unset bson.D
	for _, key := range found.outdated(now) {
		unset = append(unset, bson.E{Key: at + ".used." + key, Value: ""})
	}
	if unset != nil {
		change = append(change, bson.E{Key: "$unset", Value: unset})
	}
	result, err := users.UpdateOne(ctx, bson.D{
		{Key: "_id", Value: r.User}, enabled,
		{Key: at + ".token", Value: r.Used},
		{Key: at + ".generation", Value: r.Generation},
	}, change)
	if err != nil {
		return Exchange{}, false, mongodb.Translate("rotate a refresh token", err)
	}
	found.ExpiresAt = expires
	return found.exchanged(p, r.Session, used), result.MatchedCount == 1, nil
}

// endStolen ends the session of a refresh token that was used before. It returns ErrTokenReused.
func (s *Store) endStolen(ctx context.Context, r Rotation) error {
	family := bson.D{{Key: "_id", Value: r.User}, {Key: session(r.Session) + ".family", Value: r.Family}}
	if err := s.end(ctx, &outbox.Window{}, family, r.User, r.Session, event.TokenReuse); err != nil {
		return err
	}
	return ErrTokenReused
}

// newest reports whether a refresh token is the newest of the session.
func (s Session) newest(r Rotation) bool {
	return s.Generation == r.Generation && bytes.Equal(s.Token, r.Used)
}

// replay returns the exchange of a used refresh token, and whether Rotate returns its result
// again.
func (s Session) replay(r Rotation, now time.Time) (Used, bool) {
	for _, used := range s.Used {
		if used.Generation == r.Generation && bytes.Equal(used.Token, r.Used) {
			window := ReplayWindow
			if used.Generation+1 == s.Generation { // no client has presented its successor
				window = LostAnswerWindow
			}
			return used, now.Sub(used.At) <= window
		}
	}
	return Used{}, false
}

// outdated returns the keys of the used refresh tokens to remove at the next exchange: those older
// than ReplayWindow, and the oldest over the limit.
func (s Session) outdated(now time.Time) (keys []string) {
	byAge := slices.SortedFunc(maps.Keys(s.Used), func(x, y string) int {
		return cmp.Or(s.Used[y].Generation-s.Used[x].Generation, cmp.Compare(x, y))
	})
	for i, key := range byAge {
		if i >= usedLimit-1 || now.Sub(s.Used[key].At) > ReplayWindow {
			keys = append(keys, key)
		}
	}
	return keys
}

// usedLimit bounds the stored used refresh tokens of a session, about 110 bytes each. A client
// makes fewer exchanges within ReplayWindow.
const usedLimit = 64

// exchanged returns the result of an exchange of the session's refresh token.
func (s Session) exchanged(p Profile, sid string, used Used) Exchange {
	s.ID, s.Generation, s.RotatedAt = sid, used.Generation+1, used.At
	return Exchange{p, s, used.Salt}
}

// enabled matches users that are not disabled: in MongoDB, null matches a null or missing member.
var enabled = bson.E{Key: "disabledAt", Value: nil}

// session returns the path of a session in the document. isSessionID must hold for the id.
func session(sid string) string { return "sessions." + sid }

// isSessionID reports whether a string can be the key of a session. Dots and dollar signs have a
// meaning in a path, so only letters and digits are allowed.
func isSessionID(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < '0' || '9' < c) && (c < 'A' || 'Z' < c) && (c < 'a' || 'z' < c)
	})
}
