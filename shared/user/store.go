package user

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/database"
	"ticketing.com/auth/shared/event"
)

// ReplayWindow is how long a used refresh token still gets the answer it got the
// first time, for a client that never received it.
const ReplayWindow = 10 * time.Second

// A Config says where users are kept and who is told of them.
type Config struct {
	Database *database.Connection
	Sessions int        // the most that are kept of a user
	Sink     event.Sink // nil: nobody is told, and no events are written
	Now      func() time.Time
	Log      *slog.Logger
}

// A Store keeps users. It is safe for concurrent use.
type Store struct {
	database *database.Connection
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

// Prepare creates the indexes. It may be repeated, and run by several at once:
// creating an index that exists is no change. It is not on the path of a cold
// start; a command runs it once for each deployment.
func (s *Store) Prepare(ctx context.Context) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	for _, index := range []mongo.IndexModel{ // one at a time: the embedded server fails on two that exist
		{Keys: bson.D{{Key: "email", Value: 1}}, Options: options.Index().SetUnique(true)},
		{Keys: bson.D{{Key: "undelivered", Value: 1}}}, // what the relay looks for
	} {
		_, err := users.Indexes().CreateOne(ctx, index)
		if mongo.IsDuplicateKeyError(err) {
			return errors.New("create an index: two users have one email") // without the driver's text: it quotes it
		}
		if err != nil {
			return database.Translate("create an index", err)
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
		return database.Translate("create a user", err)
	}
	w := s.outbox.window(ctx)
	defer w.close()
	s.outbox.deliver(ctx, w, users, events)
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
	users, err := s.users(ctx)
	if err != nil {
		return Account{}, err
	}
	var a Account
	err = database.Read(users.FindOne(ctx, filter), &a)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return a, ErrUnknown
	}
	return a, database.Translate("find an account", err)
}

// Open adds a session to an account whose password was found right, and replaces
// its hash by another where one is given. It returns ErrChanged where the
// password or the account is not the one that was checked: the filter holds both.
//
// If that makes more sessions than are kept, those longest without a refresh are
// ended. The write returns the document as it left it, so of any number of
// sign-ins at once the last to write sees the sessions of all, and what it leaves
// is within the bound; each session that goes is ended by one write, and told of
// once.
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
	for _, sid := range a.expired(open.CreatedAt) {
		unset = append(unset, bson.E{Key: session(sid), Value: ""})
	}
	if open.Device != "" {
		set = append(set, bson.E{Key: "devices." + open.Device, Value: open.CreatedAt})
		for _, device := range a.forgotten(open.Device, open.CreatedAt) {
			unset = append(unset, bson.E{Key: "devices." + device, Value: ""})
		}
	}
	events := s.outbox.events(ctx, a.ID, event.SignedIn, event.Data{UserID: a.ID, Email: a.Email, SessionID: open.ID})
	var after Account
	err = database.Read(users.FindOneAndUpdate(ctx,
		bson.D{{Key: "_id", Value: a.ID}, {Key: "password", Value: a.Password}, enabled},
		update(set, unset, bson.D{{Key: "$inc", Value: bson.D{{Key: "opened", Value: 1}}}}, events),
		options.FindOneAndUpdate().SetReturnDocument(options.After)), &after) // whole: the embedded server cannot project here
	if errors.Is(err, mongo.ErrNoDocuments) {
		return ErrChanged
	}
	if err != nil {
		return database.Translate("open a session", err)
	}
	w := s.outbox.window(ctx)
	defer w.close()
	taken := s.outbox.deliver(ctx, w, users, events)
	s.outbox.trim(ctx, users, after, taken)
	for _, sid := range after.surplus(s.sessions, open.ID) {
		if err := s.end(ctx, w, bson.D{{Key: "_id", Value: a.ID}}, a.ID, sid, event.Displaced); err != nil {
			s.outbox.log.WarnContext(ctx, "a session over the limit lives on until the next sign-in", "error", err)
		}
	}
	return nil
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
// It reads from the primary, with concern majority: a sign-out that was acknowledged is
// seen by every read after it. The exception is a primary that was just replaced and has
// not noticed, for some seconds; a linearizable read would cost all others a write's time.
func (s *Store) Session(ctx context.Context, id, sid string, now time.Time) (User, error) {
	users, err := s.users(ctx)
	if err != nil {
		return User{}, err
	}
	var u User
	err = database.Read(users.FindOne(ctx, bson.D{
		{Key: "_id", Value: id}, enabled,
		{Key: session(sid) + ".expiresAt", Value: bson.D{{Key: "$gt", Value: now}}},
	}, options.FindOne().SetProjection(bson.D{{Key: "email", Value: 1}})), &u)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return u, ErrEnded
	}
	return u, database.Translate("find a session", err)
}

// End ends a session. To end one that has ended is no error.
func (s *Store) End(ctx context.Context, id, sid string) error {
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
		return database.Translate("end a session", err)
	}
	if result.MatchedCount == 1 {
		s.outbox.deliver(ctx, w, users, events)
	}
	return nil
}

// Rotate exchanges a refresh token and returns the session as the exchange left it.
// A token that was exchanged at most ReplayWindow ago returns what that exchange
// returned, whatever came after it. One that was exchanged earlier ends the
// session: ErrReused. All else is ErrEnded.
//
// One compare-and-set on the newest secret: of any number of exchanges of one
// token, one matches; the others find it used a moment ago and get its answer.
//
// A token that does not know the session's family secret was never issued. It is
// refused and changes nothing, or anybody who has seen a session's id could end
// it.
func (s *Store) Rotate(ctx context.Context, r Rotation, now time.Time) (User, Session, error) {
	users, err := s.users(ctx)
	if err != nil {
		return User{}, Session{}, err
	}
	at := session(r.Session)
	used := Used{Token: r.Used, Salt: r.Salt, Generation: r.Generation, At: now}
	var a Account
	err = database.Read(users.FindOneAndUpdate(ctx,
		bson.D{
			{Key: "_id", Value: r.User}, enabled,
			{Key: at + ".family", Value: r.Family},
			{Key: at + ".token", Value: r.Used},
			{Key: at + ".generation", Value: r.Generation},
			{Key: at + ".expiresAt", Value: bson.D{{Key: "$gt", Value: now}}},
		},
		bson.D{{Key: "$set", Value: bson.D{
			{Key: at + ".token", Value: r.Token},
			{Key: at + ".generation", Value: r.Generation + 1},
			{Key: at + ".rotatedAt", Value: now},
			{Key: at + ".expiresAt", Value: r.ExpiresAt},
			{Key: at + ".used." + slot(r.Generation), Value: used},
		}}},
		options.FindOneAndUpdate().SetReturnDocument(options.After)), &a)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return s.replay(ctx, users, r, now)
	}
	return a.User, a.exchanged(r.Session, used), database.Translate("rotate a refresh token", err)
}

// Issued finds whether a refresh token is one that was issued for a session that lives,
// the newest or not, and returns ErrEnded otherwise. It changes nothing.
func (s *Store) Issued(ctx context.Context, r Rotation, now time.Time) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	err = users.FindOne(ctx, bson.D{
		{Key: "_id", Value: r.User}, enabled,
		{Key: session(r.Session) + ".family", Value: r.Family},
		{Key: session(r.Session) + ".expiresAt", Value: bson.D{{Key: "$gt", Value: now}}},
	}, options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})).Err()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return ErrEnded
	}
	return database.Translate("find a session", err)
}

// replay decides on a refresh token that is not the newest.
func (s *Store) replay(ctx context.Context, users *mongo.Collection, r Rotation, now time.Time) (User, Session, error) {
	family := bson.D{{Key: "_id", Value: r.User}, enabled, {Key: session(r.Session) + ".family", Value: r.Family}}
	var a Account
	err := database.Read(users.FindOne(ctx, family), &a)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return User{}, Session{}, ErrEnded
	}
	if err != nil {
		return User{}, Session{}, database.Translate("find a session", err)
	}
	found := a.Sessions[r.Session]
	used := found.Used[slot(r.Generation)]
	switch {
	case !found.ExpiresAt.After(now):
		return User{}, Session{}, ErrEnded
	case bytes.Equal(used.Token, r.Used) && now.Sub(used.At) <= ReplayWindow:
		return a.User, a.exchanged(r.Session, used), nil
	}
	w := s.outbox.window(ctx)
	defer w.close()
	if err := s.end(ctx, w, family, r.User, r.Session, event.Theft); err != nil {
		return User{}, Session{}, err
	}
	return User{}, Session{}, ErrReused
}

// exchanged is the session as an exchange left it.
func (a Account) exchanged(sid string, used Used) Session {
	s := a.Sessions[sid]
	s.ID, s.Salt, s.Generation, s.RotatedAt = sid, used.Salt, used.Generation+1, used.At
	return s
}

// slots is how many used refresh tokens of a session are remembered: more than
// anybody exchanges, one after the other, in ReplayWindow.
const slots = 16

// slot names the place of a generation among the used ones.
func slot(generation int) string { return strconv.Itoa(generation % slots) }

// enabled matches users that are not disabled: null is how MongoDB matches what is
// null or missing.
var enabled = bson.E{Key: "disabledAt", Value: nil}

// session is the path of a session in the document. Session ids are hexadecimal,
// made by package session or taken from a token that was verified: none has a
// dot or a dollar.
func session(sid string) string { return fmt.Sprintf("sessions.%s", sid) }
