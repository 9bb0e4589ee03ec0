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
	"ticketing.com/auth/shared/mongodb"
)

// A used refresh token gets the answer of its exchange again for ReplayWindow, and for
// LostAnswerWindow while its successor was never presented: then the client never received
// the answer. Later it counts as stolen (RFC 9700 section 4.14.2).
const (
	ReplayWindow     = 10 * time.Second
	LostAnswerWindow = 2 * time.Minute
)

// A Config says where users are kept and who is told of them.
type Config struct {
	Database *mongodb.Connection
	Sessions int        // the most that are kept of a user
	Sink     event.Sink // nil: nobody is told, and no events are written
	Now      func() time.Time
	Log      *slog.Logger
}

// A Store keeps users. It is safe for concurrent use.
type Store struct {
	database *mongodb.Connection
	sessions int
	outbox   *outbox
}

// New returns a store.
func New(c Config) *Store {
	return &Store{database: c.Database, sessions: c.Sessions, outbox: newOutbox(c)}
}

// users returns the collection.
func (s *Store) users(ctx context.Context) (*mongo.Collection, error) {
	return s.database.Collection(ctx, "users")
}

// Prepare creates the indexes and drops the one that earlier versions created. It may be
// repeated, and run by several at once: creating an index that exists is no change. It is not on the path of a cold
// start; a command runs it once for each deployment.
func (s *Store) Prepare(ctx context.Context) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	_, err = users.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: "email", Value: 1}}, Options: options.Index().SetUnique(true)})
	if mongo.IsDuplicateKeyError(err) {
		return errors.New("create an index: two users have one email") // without the driver's text: it quotes the email
	}
	if err != nil {
		return mongodb.Translate("create an index", err)
	}
	for _, queue := range []string{fresh, retries} {
		_, err := users.Indexes().CreateOne(ctx, queueIndex(queue))
		if server, is := errors.AsType[mongo.ServerError](err); is && server.HasErrorCode(notImplemented) {
			continue // the embedded server has no partial index; it reads every document anyway
		}
		if err != nil {
			return mongodb.Translate("create an index", err)
		}
	}
	err = users.Indexes().DropOne(ctx, formerIndex)
	if server, is := errors.AsType[mongo.ServerError](err); err != nil && !(is && server.HasErrorCode(indexNotFound)) {
		// the database user of an earlier version may not drop it, and nothing depends on that
		s.outbox.log.WarnContext(ctx, "an index of earlier versions is not dropped", "index", formerIndex, "error", err)
	}
	return nil
}

// formerIndex is an index of every user that earlier versions created for the relay.
const formerIndex = "undelivered_1"

// indexNotFound is the error code of MongoDB for an index to drop that does not exist.
const indexNotFound = 27

// notImplemented is the error code of the embedded server for a kind of index that it lacks.
const notImplemented = 238

// queueIndex returns the index of one of the relay's queues. It is partial: only accounts
// with events that wait have an entry.
func queueIndex(member string) mongo.IndexModel {
	return mongo.IndexModel{
		Keys:    bson.D{{Key: member, Value: 1}, {Key: "_id", Value: 1}},
		Options: options.Index().SetPartialFilterExpression(bson.D{{Key: member, Value: bson.D{{Key: "$exists", Value: true}}}}),
	}
}

// Create adds a user, with its first session unless that is nil. It returns
// ErrUsed where there is one with this email or this id.
//
// One insert: of any number of sign-ups with one email, at one time, the unique
// index lets one through. A process that dies leaves a whole user or none.
func (s *Store) Create(ctx context.Context, u User, password string, first *Session) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	now := s.outbox.now()
	document := bson.D{
		{Key: "_id", Value: u.ID},
		{Key: "email", Value: u.Email},
		{Key: "password", Value: password},
		{Key: "createdAt", Value: now},
	}
	told := event.Data{UserID: u.ID, Email: u.Email}
	if first != nil {
		document = append(document, bson.E{Key: "opened", Value: 1}, bson.E{Key: "sessions", Value: bson.D{{Key: first.ID, Value: *first}}})
		if first.Device != "" {
			document = append(document, bson.E{Key: "devices", Value: bson.D{{Key: first.Device, Value: first.CreatedAt}}})
		}
		told.SessionID = first.ID
	}
	events := s.outbox.events(ctx, u.ID, event.SignedUp, told)
	_, err = users.InsertOne(ctx, append(document, events.members()...))
	if mongo.IsDuplicateKeyError(err) {
		return ErrUsed // without the driver's text: it quotes the email
	}
	if err != nil {
		return mongodb.Translate("create a user", err)
	}
	w := s.outbox.window(ctx)
	defer w.close()
	s.outbox.deliver(ctx, w, users, events)
	return nil
}

// Account returns the credentials of an account by its email: no sessions and no events, so
// that the time of a sign-in does not depend on them. It returns ErrUnknown, or
// ErrUnreadable for a document with an unexpected type or an id that no refresh token holds.
func (s *Store) Account(ctx context.Context, email string) (Account, error) {
	a, err := s.account(ctx, bson.D{{Key: "email", Value: email}}, options.FindOne().SetProjection(bson.D{
		{Key: "email", Value: 1}, {Key: "password", Value: 1}, {Key: "disabledAt", Value: 1},
		{Key: "createdAt", Value: 1}, {Key: "devices", Value: 1},
	}))
	if err == nil && (a.ID == "" || len(a.ID) > MaxID || !utf8.ValidString(a.ID)) {
		s.outbox.log.ErrorContext(ctx, "an account cannot have sessions: its id must have 1 to 128 bytes of UTF-8", "user", a.ID)
		return Account{}, fmt.Errorf("find an account: %w", ErrUnreadable)
	}
	return a, err
}

// AccountByID returns the whole account of a user id, ErrUnknown or ErrUnreadable.
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
		return a, ErrUnknown
	}
	if errors.Is(err, mongodb.ErrUnreadable) {
		raw, _ := found.Raw()
		s.outbox.log.ErrorContext(ctx, "a stored account cannot be read", "user", idText(raw), "error", err)
		return Account{}, fmt.Errorf("find an account: %w", ErrUnreadable)
	}
	return a, mongodb.Translate("find an account", err)
}

// idText returns the id of a document for the log, whatever its type.
func idText(document bson.Raw) string {
	id := document.Lookup("_id")
	if s, ok := id.StringValueOK(); ok {
		return s
	}
	return id.String()
}

// Open adds a session to an account whose password was found right, and replaces
// its hash by another where one is given. It returns ErrChanged where the
// password or the account is not the one that was checked: the filter holds both.
//
// If there are then more sessions than the limit, Open ends those longest without a
// refresh. The write returns the document as it left it, so of any number of concurrent
// sign-ins the last to write sees the sessions of all and leaves no more than the limit. One
// write ends each surplus session, so each has one event. Expired sessions are removed
// without an event.
func (s *Store) Open(ctx context.Context, a Account, open Session, rehash string) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	set := bson.D{{Key: session(open.ID), Value: open}}
	if rehash != "" {
		set = append(set, bson.E{Key: "password", Value: rehash})
	}
	var unset bson.D
	if open.Device != "" {
		set = append(set, bson.E{Key: "devices." + open.Device, Value: open.CreatedAt})
		for _, device := range a.forgotten(open.Device, open.CreatedAt) {
			unset = append(unset, bson.E{Key: "devices." + device, Value: ""})
		}
	}
	events := s.outbox.events(ctx, a.ID, event.SignedIn, event.Data{UserID: a.ID, Email: a.Email, SessionID: open.ID})
	document, err := users.FindOneAndUpdate(ctx,
		bson.D{{Key: "_id", Value: a.ID}, {Key: "password", Value: a.Password}, enabled},
		update(set, unset, bson.D{{Key: "$inc", Value: bson.D{{Key: "opened", Value: 1}}}}, events),
		options.FindOneAndUpdate().SetReturnDocument(options.After)).Raw() // whole: the embedded server cannot project here
	if errors.Is(err, mongo.ErrNoDocuments) {
		return ErrChanged
	}
	if server, is := errors.AsType[mongo.ServerError](err); is && (server.HasErrorCode(pathNotViable) || server.HasErrorCode(typeMismatch)) {
		// without the driver's text: it quotes the document
		s.outbox.log.ErrorContext(ctx, "a stored account cannot be read", "user", a.ID, "error", "a member has a type that an update does not fit")
		return ErrUnreadable
	}
	if err != nil {
		return mongodb.Translate("open a session", err)
	}
	after := openedOf(a.ID, document)
	w := s.outbox.window(ctx)
	defer w.close()
	taken := s.outbox.deliver(ctx, w, users, events)
	s.outbox.trim(ctx, users, after, taken)
	s.limitSessions(ctx, w, users, after, open)
	return nil
}

// The error codes of an update that does not fit the types in a document.
const pathNotViable, typeMismatch = 28, 14

// limitSessions removes the expired sessions of an account and ends those over the limit.
// A failure is logged: the session that was opened is valid, and the next sign-in tries
// again.
func (s *Store) limitSessions(ctx context.Context, w *window, users *mongo.Collection, after opened, open Session) {
	var expired bson.D
	for _, sid := range after.expired(open.CreatedAt) {
		expired = append(expired, bson.E{Key: session(sid), Value: ""})
		delete(after.Sessions, sid)
	}
	if expired != nil {
		_, err := users.UpdateOne(ctx, bson.D{{Key: "_id", Value: after.ID}}, bson.D{{Key: "$unset", Value: expired}})
		if err != nil {
			s.outbox.log.WarnContext(ctx, "expired sessions not removed", "error", err)
		}
	}
	for _, sid := range after.surplus(s.sessions, open.ID) {
		if err := s.end(ctx, w, bson.D{{Key: "_id", Value: after.ID}}, after.ID, sid, event.Displaced); err != nil {
			s.outbox.log.WarnContext(ctx, "session over the limit not ended", "error", err)
		}
	}
}

// update puts the parts of an update together, without those that are empty,
// which MongoDB would refuse.
func update(set, unset, more bson.D, events *events) bson.D {
	u := more
	if set = append(set, events.fields()...); set != nil {
		u = append(u, bson.E{Key: "$set", Value: set})
	}
	if unset != nil {
		u = append(u, bson.E{Key: "$unset", Value: unset})
	}
	return append(u, events.since()...)
}

// Session returns the user of a live session, or ErrEnded.
//
// It reads from the primary with read concern majority: every read sees a sign-out that was
// acknowledged before it. The exception is a primary that was just replaced and has not
// noticed, for some seconds; a linearizable read would cost all others a write's time.
func (s *Store) Session(ctx context.Context, id, sid string, now time.Time) (User, error) {
	u, _, err := s.live(ctx, id, sid, bson.D{{Key: session(sid) + ".expiresAt", Value: 1}}, now)
	return u, err
}

// live returns a user and one of its sessions with the members of a projection, or ErrEnded
// where the session is not there or expired, or the user is disabled.
//
// The filter is the id alone and the rest is checked here: it is one indexed read on
// MongoDB, and the embedded server has an index for this filter and no other.
func (s *Store) live(ctx context.Context, id, sid string, projection bson.D, now time.Time) (User, Session, error) {
	if !isSessionID(sid) {
		return User{}, Session{}, ErrEnded
	}
	users, err := s.users(ctx)
	if err != nil {
		return User{}, Session{}, err
	}
	var a Account
	err = mongodb.Read(users.FindOne(ctx, bson.D{{Key: "_id", Value: id}},
		options.FindOne().SetProjection(append(projection, bson.E{Key: "email", Value: 1}, bson.E{Key: "disabledAt", Value: 1}))), &a)
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		return User{}, Session{}, mongodb.Translate("find a session", err)
	}
	found, there := a.Sessions[sid]
	if !there || a.DisabledAt != nil || !found.ExpiresAt.After(now) {
		return User{}, Session{}, ErrEnded
	}
	return a.User, found, nil
}

// End ends a session. It returns nil where the session has ended before.
func (s *Store) End(ctx context.Context, id, sid string) error {
	if !isSessionID(sid) {
		return nil
	}
	w := s.outbox.window(ctx)
	defer w.close()
	return s.end(ctx, w, bson.D{{Key: "_id", Value: id}}, id, sid, event.ByUser)
}

// end ends a session of the user that the filter matches, if it is there: only
// then is there something to tell.
func (s *Store) end(ctx context.Context, w *window, filter bson.D, id, sid, reason string) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	events := s.outbox.events(ctx, id, event.SignedOut, event.Data{UserID: id, SessionID: sid, Reason: reason})
	result, err := users.UpdateOne(ctx,
		append(filter, bson.E{Key: session(sid), Value: bson.D{{Key: "$exists", Value: true}}}),
		update(nil, bson.D{{Key: session(sid), Value: ""}}, nil, events))
	if err != nil {
		return mongodb.Translate("end a session", err)
	}
	if result.MatchedCount == 1 {
		s.outbox.deliver(ctx, w, users, events)
	}
	return nil
}

// Rotate exchanges a refresh token and returns the session as the exchange left it. A token
// that was exchanged before returns the result of that exchange, within ReplayWindow or
// LostAnswerWindow, whatever came after it. Later it ends the session: ErrReused. All else
// is ErrEnded.
//
// It reads the session and decides; the write is a compare-and-set on the newest secret. Of
// any number of exchanges of one token one write matches. The others read again, find the
// token used a moment ago and return the same result.
//
// A token without the session's family secret was never issued. It changes nothing;
// otherwise anyone who has seen a session's id could end the session.
func (s *Store) Rotate(ctx context.Context, r Rotation, now time.Time) (User, Session, error) {
	for range tries {
		u, found, err := s.issued(ctx, r, now)
		if err != nil {
			return User{}, Session{}, err
		}
		used, replayed := found.replay(r, now)
		if replayed {
			return u, found.exchanged(r.Session, used), nil
		}
		if !found.newest(r) {
			return User{}, Session{}, s.endStolen(ctx, r)
		}
		rotated, won, err := s.exchange(ctx, r, found, now)
		if won || err != nil {
			return u, rotated, err
		}
	}
	return User{}, Session{}, apierror.Busy(time.Second, errors.New("rotate a refresh token: the session keeps changing"))
}

// Issued returns nil for a refresh token that was issued for a live session, the newest or
// not, and ErrEnded otherwise. It changes nothing.
func (s *Store) Issued(ctx context.Context, r Rotation, now time.Time) error {
	_, _, err := s.issued(ctx, r, now)
	return err
}

// issued returns the live session for which a refresh token was issued, or ErrEnded.
func (s *Store) issued(ctx context.Context, r Rotation, now time.Time) (User, Session, error) {
	u, found, err := s.live(ctx, r.User, r.Session, bson.D{{Key: session(r.Session), Value: 1}}, now)
	if err == nil && !bytes.Equal(found.Family, r.Family) {
		err = ErrEnded
	}
	return u, found, err
}

// exchange replaces the newest refresh token of a session and removes the used ones that
// can no longer be replayed. It reports false where another write came between.
func (s *Store) exchange(ctx context.Context, r Rotation, found Session, now time.Time) (Session, bool, error) {
	users, err := s.users(ctx)
	if err != nil {
		return Session{}, false, err
	}
	expires := r.ExpiresAt
	if end := found.CreatedAt.Add(r.MaxLife); r.MaxLife > 0 && end.Before(expires) {
		expires = end
	}
	if !expires.After(now) {
		return Session{}, false, ErrEnded
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
		return Session{}, false, mongodb.Translate("rotate a refresh token", err)
	}
	found.ExpiresAt = expires
	return found.exchanged(r.Session, used), result.MatchedCount == 1, nil
}

// endStolen ends the session of a refresh token that was used before. It returns ErrReused.
func (s *Store) endStolen(ctx context.Context, r Rotation) error {
	w := s.outbox.window(ctx)
	defer w.close()
	family := bson.D{{Key: "_id", Value: r.User}, {Key: session(r.Session) + ".family", Value: r.Family}}
	if err := s.end(ctx, w, family, r.User, r.Session, event.TokenReuse); err != nil {
		return err
	}
	return ErrReused
}

// newest reports whether a refresh token is the newest of the session.
func (s Session) newest(r Rotation) bool {
	return s.Generation == r.Generation && bytes.Equal(s.Token, r.Used)
}

// replay returns the exchange of a used refresh token and whether its result is returned
// again.
func (s Session) replay(r Rotation, now time.Time) (Used, bool) {
	for _, used := range s.Used {
		if used.Generation == r.Generation && bytes.Equal(used.Token, r.Used) {
			window := ReplayWindow
			if used.Generation+1 == s.Generation { // its successor is the newest: never presented
				window = LostAnswerWindow
			}
			return used, now.Sub(used.At) <= window
		}
	}
	return Used{}, false
}

// outdated returns the keys of the used refresh tokens that one more exchange makes
// useless: those past ReplayWindow, and the oldest over the limit.
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

// usedLimit bounds the used refresh tokens of a session that are stored, about 110 bytes
// each. One client makes fewer exchanges in a row within ReplayWindow.
const usedLimit = 64

// exchanged returns the session as an exchange left it.
func (s Session) exchanged(sid string, used Used) Session {
	s.ID, s.Salt, s.Generation, s.RotatedAt = sid, used.Salt, used.Generation+1, used.At
	return s
}

// enabled matches users that are not disabled: null is how MongoDB matches what is
// null or missing.
var enabled = bson.E{Key: "disabledAt", Value: nil}

// session returns the path of a session in the document. isSessionID holds for its id.
func session(sid string) string { return "sessions." + sid }

// isSessionID reports whether a string can be the key of a session: no dot and no dollar,
// which have a meaning in a path.
func isSessionID(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < '0' || '9' < c) && (c < 'A' || 'Z' < c) && (c < 'a' || 'z' < c)
	})
}
