package throttle

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/database"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/fault"
)

// A Limit is how much one address, or one session, may ask for. Behind one address may
// be a household, an office, or the thousands of a mobile carrier, so each limit lies
// far above what a person does, and where somebody cannot be told from his neighbours
// he is told when to come back.
type Limit struct {
	Name   string        // of the function that it is for, or of what it counts
	Quota  int           // requests in a window; it is told to whoever has used it up
	Window time.Duration // windows follow each other, the same for everybody
	weight int           // as how many a wrong password counts; any other request is one
}

var (
	// Signup: each costs a hash, and makes an account or tells that there is one.
	Signup = Limit{Name: "signup", Quota: 60, Window: 10 * time.Minute}
	// Signin: a thousand right passwords or a hundred wrong ones.
	Signin = Limit{Name: "signin", Quota: 1000, Window: 5 * time.Minute, weight: 10}
	// Refresh: what keeps 18,000 sessions alive; nobody can guess a refresh token, so
	// it is only there for the database.
	Refresh = Limit{Name: "refresh", Quota: 1200, Window: time.Minute}
	// byOneSession is for those whose address has used up its own: a session refreshes
	// once in a quarter of an hour.
	byOneSession = Limit{Name: "session", Quota: 30, Window: time.Minute}
)

// LimitOf returns the limit of a function, if it has one.
func LimitOf(function string) (Limit, bool) {
	for _, l := range []Limit{Signup, Signin, Refresh} {
		if l.Name == function {
			return l, true
		}
	}
	return Limit{}, false
}

// patience is how long an address's count may take. It protects what the machine can
// do, not a secret: where the database does not answer in time the request goes on,
// to succeed or to fail by itself.
const patience = time.Second

// A full limit is believed to be full for so long without looking: whoever goes on
// all the same costs the database next to nothing. It is short because sign-ins that
// succeed give back most of what they took.
const believed = time.Second

// maxBelieved bounds what is remembered of full limits, in entries of some 100 bytes.
const maxBelieved = 4096

// Admit counts a request of an address. It returns a fault of kind TooMany where the
// limit is used up. It costs a round trip.
func (t *Throttle) Admit(ctx context.Context, l Limit, c endpoint.Caller) error {
	_, err := t.admit(ctx, l, t.subject(c))
	return err
}

// AdmitSession counts a request of a session, wherever it comes from, as Admit counts
// one of an address.
func (t *Throttle) AdmitSession(ctx context.Context, sid string) error {
	_, err := t.admit(ctx, byOneSession, sid)
	return err
}

// admit also returns what was counted, or "" where nothing was.
//
// A process that has not heard the database's time yet may count in the window of a
// clock that is wrong. The answer tells, and it counts again in the one that is now.
func (t *Throttle) admit(ctx context.Context, l Limit, subject string) (id string, err error) {
	if t.off || t.blind {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	weight := cmp.Or(l.weight, 1)
	for range 2 {
		now := t.clock.now()
		end := l.end(now)
		var refused error
		if id, refused = t.current(l, subject, now); t.isFull(id, now) {
			return "", refused
		}
		n, err := t.add(ctx, id, weight, end.Add(l.Window)) // later than it ends: a count that began at its end goes on
		switch {
		case err != nil:
			t.log.WarnContext(ctx, "a request was not counted", "limit", l.Name, "error", err)
			return "", nil
		case !l.end(t.clock.now()).Equal(end):
		case n > l.Quota:
			t.setFull(id, now)
			// it was asked for, and not had: or sign-ins at once, each of which may yet turn
			// out to be right, would use up the limit by being refused
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			defer cancel()
			if err := t.change(ctx, less(id, weight)); err != nil {
				t.log.WarnContext(ctx, "a count was not settled", "error", err)
			}
			return "", refused
		default:
			return id, nil
		}
	}
	return id, nil
}

// current names the count of a subject in the window that is now, and says how one is
// refused whose count has come to the limit.
func (t *Throttle) current(l Limit, subject string, now time.Time) (id string, refused error) {
	end := l.end(now)
	return fmt.Sprintf("%s:%s:%d", l.Name, digest(subject), end.Unix()), fault.Limited(l.Name, l.Quota, l.Window, end.Sub(now))
}

// believedFull is the refusal of a request whose limit is believed to be used up. It asks nobody.
func (t *Throttle) believedFull(l Limit, subject string) error {
	if t.off || t.blind {
		return nil
	}
	now := t.clock.now()
	if id, refused := t.current(l, subject, now); t.isFull(id, now) {
		return refused
	}
	return nil
}

// end returns when the window of a moment is over.
func (l Limit) end(now time.Time) time.Time { return now.Truncate(l.Window).Add(l.Window) }

// add adds to a count and returns what it is then. The answer brings the time.
func (t *Throttle) add(ctx context.Context, id string, n int, expires time.Time) (int, error) {
	c, err := t.collection(ctx)
	if err != nil {
		return 0, err
	}
	var count struct {
		N  int       `bson:"n"`
		At time.Time `bson:"at"`
	}
	for range 3 { // two who begin a count at once: one of them may be told that it is there already
		asked := t.clock.own()
		err = database.Read(c.FindOneAndUpdate(ctx, bson.D{{Key: "_id", Value: id}},
			bson.D{
				{Key: "$inc", Value: bson.D{{Key: "n", Value: n}}},
				{Key: "$setOnInsert", Value: bson.D{{Key: "expiresAt", Value: expires}}},
				{Key: "$currentDate", Value: bson.D{{Key: "at", Value: true}}},
			},
			options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After)), &count)
		if err == nil {
			t.clock.hear(count.At, asked)
		}
		if !mongo.IsDuplicateKeyError(err) {
			break
		}
	}
	return count.N, database.Translate("count a request", err)
}

// less subtracts from a count.
func less(id string, n int) *mongo.UpdateOneModel {
	return mongo.NewUpdateOneModel().SetFilter(bson.D{{Key: "_id", Value: id}, {Key: "n", Value: bson.D{{Key: "$gte", Value: n}}}}).
		SetUpdate(bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: -n}}}})
}

// none starts a count anew.
func none(id string) *mongo.UpdateOneModel {
	return mongo.NewUpdateOneModel().SetFilter(bson.D{{Key: "_id", Value: id}}).
		SetUpdate(bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: 0}}}})
}

// change changes counts, by one command.
func (t *Throttle) change(ctx context.Context, counts ...mongo.WriteModel) error {
	c, err := t.collection(ctx)
	if err != nil {
		return err
	}
	_, err = c.BulkWrite(ctx, counts, options.BulkWrite().SetOrdered(false))
	return database.Translate("give back a count", err)
}

func (t *Throttle) isFull(id string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.full[id].After(now)
}

func (t *Throttle) setFull(id string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.full) >= maxBelieved {
		clear(t.full) // they are found full again
	}
	t.full[id] = now.Add(believed)
}
