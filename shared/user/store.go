package user

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/event"
	"ticketing.com/auth/shared/fault"
)

// ReplayWindow is how long a used refresh token still gets the answer it got the
// first time, for a client that never received it.
const ReplayWindow = 10 * time.Second

// openTries bounds how often a sign-in is tried again because others of the same
// account were faster. Of any contenders one always succeeds, and an instance
// has no more of them than it hashes at once.
const openTries = 16

// A Config says where users are kept and who is told of them.
type Config struct {
	URI      string      // connection string; the database is users where it names none
	Sessions int         // the most that are kept of a user
	Sink     *event.Sink // nil: nobody is told, and no events are written
	Now      func() time.Time
	Log      *slog.Logger
}

// A Store keeps users. It is safe for concurrent use.
type Store struct {
	database *database
	sessions int
	outbox   *outbox
}

// New returns a store that connects when first used.
func New(c Config) (*Store, error) {
	if err := checkURI(c.URI); err != nil {
		return nil, err
	}
	return &Store{database: &database{uri: c.URI}, sessions: c.Sessions, outbox: newOutbox(c)}, nil
}

// Close ends the store's connections, if it has any.
func (s *Store) Close(ctx context.Context) error { return s.database.close(ctx) }

// Prepare creates the indexes. It may be repeated, and run by several at once:
// creating an index that exists is no change. It is not on the path of a cold
// start; a command runs it once for each deployment.
func (s *Store) Prepare(ctx context.Context) error {
	users, err := s.database.users()
	if err != nil {
		return err
	}
	for _, index := range []mongo.IndexModel{ // one at a time: the embedded server fails on two that exist
		{Keys: bson.D{{Key: "email", Value: 1}}, Options: options.Index().SetUnique(true)},
		{Keys: bson.D{{Key: "undelivered", Value: 1}}}, // what the relay looks for
	} {
		if _, err := users.Indexes().CreateOne(ctx, index); err != nil {
			return translate("create an index", err)
		}
	}
	return nil
}

// Create adds a user, with its first session unless that is nil. It returns
// ErrUsed where there is one with this email or this id.
//
// One insert: of any number of sign-ups with one email, at one time, the unique
// index lets one through. A process that dies leaves a whole user or none.
func (s *Store) Create(ctx context.Context, u User, password string, first *Session) error {
	users, err := s.database.users()
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
		told.SessionID = first.ID
	}
	events := s.outbox.events(ctx, event.SignedUp, told)
	_, err = users.InsertOne(ctx, append(document, events.members()...))
	if mongo.IsDuplicateKeyError(err) {
		return ErrUsed // without the driver's text: it quotes the email
	}
	if err != nil {
		return translate("create a user", err)
	}
	s.outbox.deliver(ctx, users, events)
	return nil
}

// Account returns the account of an email, or ErrUnknown.
func (s *Store) Account(ctx context.Context, email string) (Account, error) {
	return s.account(ctx, bson.D{{Key: "email", Value: email}})
}

// AccountByID returns the account of a user's id, or ErrUnknown.
func (s *Store) AccountByID(ctx context.Context, id string) (Account, error) {
	return s.account(ctx, bson.D{{Key: "_id", Value: id}})
}

func (s *Store) account(ctx context.Context, filter bson.D) (Account, error) {
	users, err := s.database.users()
	if err != nil {
		return Account{}, err
	}
	var a Account
	err = users.FindOne(ctx, filter).Decode(&a)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return a, ErrUnknown
	}
	return a, translate("find an account", err)
}

// Open adds a session to an account whose password was found right, and replaces
// its hash by another where one is given. It returns ErrChanged where the
// password or the account is not the one that was checked.
//
// The filter holds the hash that was verified, so a password changed in between
// opens nothing; and it holds the number of sessions ever opened, so that those
// to be dropped were chosen from all there are: the bound is exact.
func (s *Store) Open(ctx context.Context, a Account, open Session, rehash string) error {
	users, err := s.database.users()
	if err != nil {
		return err
	}
	for range openTries {
		update, events := s.opening(ctx, a, open, rehash)
		result, err := users.UpdateOne(ctx, unchanged(a), update)
		if err != nil {
			return translate("open a session", err)
		}
		if result.MatchedCount == 1 {
			s.outbox.deliver(ctx, users, events)
			return nil
		}
		read, err := s.Account(ctx, a.Email)
		if err != nil && !errors.Is(err, ErrUnknown) {
			return err
		}
		if err != nil || read.Password != a.Password || read.DisabledAt != nil {
			return ErrChanged
		}
		a = read
	}
	return fault.Busy(time.Second, errors.New("open a session: too many at once"))
}

// unchanged matches an account as it was read.
func unchanged(a Account) bson.D {
	return bson.D{{Key: "_id", Value: a.ID}, {Key: "password", Value: a.Password}, enabled, opened(a)}
}

// opened matches an account to which no session was added since it was read. A
// user that was brought along has no such member before the first sign-in.
func opened(a Account) bson.E {
	if a.Opened == 0 {
		return bson.E{Key: "opened", Value: bson.D{{Key: "$exists", Value: false}}}
	}
	return bson.E{Key: "opened", Value: a.Opened}
}

// opening is the update that adds a session, drops those that must give way, and
// writes the events that tell of both.
func (s *Store) opening(ctx context.Context, a Account, open Session, rehash string) (bson.D, *events) {
	set := bson.D{{Key: session(open.ID), Value: open}}
	if rehash != "" {
		set = append(set, bson.E{Key: "password", Value: rehash})
	}
	var unset bson.D
	told := []event.Data{{UserID: a.ID, Email: a.Email, SessionID: open.ID}}
	expired, displaced := a.surplus(open.CreatedAt, s.sessions)
	for _, sid := range append(expired, displaced...) {
		unset = append(unset, bson.E{Key: session(sid), Value: ""})
	}
	for _, sid := range displaced {
		told = append(told, event.Data{UserID: a.ID, SessionID: sid, Reason: event.Displaced})
	}
	events := s.outbox.events(ctx, event.SignedIn, told[0])
	events.add(ctx, event.SignedOut, told[1:]...)
	unset = append(unset, s.outbox.overflow(ctx, a)...)
	return update(set, unset, bson.D{{Key: "$inc", Value: bson.D{{Key: "opened", Value: 1}}}}, events), events
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
// It reads from the primary: a sign-out that was acknowledged is seen by every
// read after it.
func (s *Store) Session(ctx context.Context, id, sid string, now time.Time) (User, error) {
	users, err := s.database.users()
	if err != nil {
		return User{}, err
	}
	var u User
	err = users.FindOne(ctx, bson.D{
		{Key: "_id", Value: id}, enabled,
		{Key: session(sid) + ".expiresAt", Value: bson.D{{Key: "$gt", Value: now}}},
	}, options.FindOne().SetProjection(bson.D{{Key: "email", Value: 1}})).Decode(&u)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return u, ErrEnded
	}
	return u, translate("find a session", err)
}

// End ends a session. To end one that has ended is no error.
func (s *Store) End(ctx context.Context, id, sid string) error {
	return s.end(ctx, bson.D{{Key: "_id", Value: id}}, id, sid, event.ByUser)
}

// end ends a session of the user that the filter matches, if it is there: only
// then is there something to tell.
func (s *Store) end(ctx context.Context, filter bson.D, id, sid, reason string) error {
	users, err := s.database.users()
	if err != nil {
		return err
	}
	events := s.outbox.events(ctx, event.SignedOut, event.Data{UserID: id, SessionID: sid, Reason: reason})
	result, err := users.UpdateOne(ctx,
		append(filter, bson.E{Key: session(sid), Value: bson.D{{Key: "$exists", Value: true}}}),
		update(nil, bson.D{{Key: session(sid), Value: ""}}, nil, events))
	if err != nil {
		return translate("end a session", err)
	}
	if result.MatchedCount == 1 {
		s.outbox.deliver(ctx, users, events)
	}
	return nil
}

// Rotate exchanges a refresh token and returns the session as it then is. A
// token that was exchanged at most ReplayWindow ago returns the session as that
// exchange left it, from which the same answer can be made. One that was
// exchanged earlier ends the session: ErrReused. All else is ErrEnded.
//
// One compare-and-set on the newest secret: of any number of exchanges of one
// token, one matches; the others find it used a moment ago and get its answer.
//
// A token that does not know the session's family secret was never issued. It is
// refused and changes nothing, or anybody who has seen a session's id could end
// it.
func (s *Store) Rotate(ctx context.Context, r Rotation, now time.Time) (User, Session, error) {
	users, err := s.database.users()
	if err != nil {
		return User{}, Session{}, err
	}
	at := session(r.Session)
	var a Account
	err = users.FindOneAndUpdate(ctx,
		bson.D{
			{Key: "_id", Value: r.User}, enabled,
			{Key: at + ".family", Value: r.Family},
			{Key: at + ".token", Value: r.Used},
			{Key: at + ".expiresAt", Value: bson.D{{Key: "$gt", Value: now}}},
		},
		bson.D{
			{Key: "$set", Value: bson.D{
				{Key: at + ".token", Value: r.Token},
				{Key: at + ".used", Value: r.Used},
				{Key: at + ".salt", Value: r.Salt},
				{Key: at + ".rotatedAt", Value: now},
				{Key: at + ".expiresAt", Value: r.ExpiresAt},
			}},
			{Key: "$inc", Value: bson.D{{Key: at + ".generation", Value: 1}}},
		},
		options.FindOneAndUpdate().SetReturnDocument(options.After), // whole: the embedded server cannot project here
	).Decode(&a)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return s.replay(ctx, users, r, now)
	}
	return a.User, a.session(r.Session), translate("rotate a refresh token", err)
}

// replay decides on a refresh token that is not the newest.
func (s *Store) replay(ctx context.Context, users *mongo.Collection, r Rotation, now time.Time) (User, Session, error) {
	at := session(r.Session)
	family := bson.D{{Key: "_id", Value: r.User}, enabled, {Key: at + ".family", Value: r.Family}}
	var a Account
	err := users.FindOne(ctx, family,
		options.FindOne().SetProjection(bson.D{{Key: "email", Value: 1}, {Key: at, Value: 1}}),
	).Decode(&a)
	switch found := a.session(r.Session); {
	case errors.Is(err, mongo.ErrNoDocuments):
		return User{}, Session{}, ErrEnded
	case err != nil:
		return User{}, Session{}, translate("find a session", err)
	case !found.ExpiresAt.After(now):
		return User{}, Session{}, ErrEnded
	case bytes.Equal(found.Used, r.Used) && now.Sub(found.RotatedAt) <= ReplayWindow:
		return a.User, found, nil
	}
	if err := s.end(ctx, family, r.User, r.Session, event.Theft); err != nil {
		return User{}, Session{}, err
	}
	return User{}, Session{}, ErrReused
}

func (a Account) session(sid string) Session {
	s := a.Sessions[sid]
	s.ID = sid
	return s
}

// enabled matches users that are not disabled.
var enabled = bson.E{Key: "disabledAt", Value: bson.D{{Key: "$exists", Value: false}}}

// session is the path of a session in the document. Session ids are hexadecimal,
// made by package session or taken from a token that was verified: none has a
// dot or a dollar.
func session(sid string) string { return fmt.Sprintf("sessions.%s", sid) }
