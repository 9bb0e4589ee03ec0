package throttle

import (
	"cmp"
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/database"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/fault"
)

const (
	// free is how many wrong passwords an account takes without a wait.
	free = 10
	// quiet is how long after the last of them, and the wait for the next, they are
	// forgotten. Whoever waits for that has the most tries: 15 in half a minute, and then
	// none for 16 minutes, which makes 1,350 a day.
	quiet = 15 * time.Minute
	// The waits are 1 s, 2 s, 4 s … 15 min. They begin below the time that it takes a
	// person to type a password again, since nobody can be told to wait.
	firstWait, longestWait = time.Second, 15 * time.Minute
)

// ErrEarly: a password for this account is not looked at now. The caller must answer
// as to a wrong one.
var ErrEarly = errors.New("after too many failures the account takes no password yet")

// Wait is the answer to a try that came too early, where it may be told because it
// tells nothing of whether there is an account.
func Wait() error { return fault.Limited("account", free, quiet, time.Minute) }

// errUndecided: no more tries of the account are let in until some of those that are
// under way have come to an end. They may all be right, so that is no failure.
var errUndecided = errors.New("as many tries of the account are under way as may fail")

// underWay is how long a try may be undecided: twice the budget of a request. What has
// not come to an end by then was cut off, and counts as a failure.
const underWay = 9 * time.Second

// failures are the tries of an account that were let in and have not succeeded.
type failures struct {
	N     int       `bson:"n"`
	Wrong int       `bson:"wrong"` // of them, those that have failed; the others are under way
	Last  time.Time `bson:"last"`
}

// wait is how long after the last try the next is let in.
func (f failures) wait() time.Duration {
	if f.N < free {
		return 0
	}
	return min(firstWait<<min(f.N-free, 30), longestWait)
}

// next is the state after one more try, or ErrEarly or errUndecided where it comes too
// early. A try that comes too early changes nothing, so nobody prolongs a wait by trying.
func (f failures) next(now time.Time) (failures, error) {
	now = now.Truncate(time.Millisecond) // as MongoDB keeps it
	switch allowed := f.Last.Add(f.wait()); {
	case f.Last.Sub(now) > longestWait: // the database's clock was wrong and was put right; nobody waits for it
	case !now.Before(allowed.Add(quiet)):
		return failures{N: 1, Last: now}, nil
	case f.N < free || !now.Before(allowed):
	case f.Wrong < free && now.Sub(f.Last) < underWay:
		return f, errUndecided
	default:
		return f, ErrEarly
	}
	return failures{f.N + 1, f.Wrong, now}, nil
}

// expires is later than the failures are forgotten: the database may come to have
// another clock, of another member of its replica set.
func (f failures) expires() time.Time { return f.Last.Add(f.wait() + 2*quiet) }

// A Try is one sign-in, from its first moment to its answer. If it succeeds, counting
// costs it no time: its address is counted while the account is read, its try while the
// password is hashed, and what it gets back is given back while the session is opened.
// If it fails, that is noted before it is told.
//
//	try := throttle.Begin(ctx, caller, email); defer try.End()
//	try.Full(): has this address used up its limit, as far as is known here?
//	    … find the account …
//	try.Admitted(): may this address try at all?
//	counted := try.Count(known)
//	    … hash …
//	counted(): does the result count?
//	try.Wrong(), or try.Right(), or neither: then nothing was learnt of the password
type Try struct {
	throttle *Throttle
	ctx      context.Context
	caller   endpoint.Caller
	email    string

	full      error  // the address has used up its limit, which is known without asking
	addressID string // what was counted of the address
	admitted  func() error
	accountID string // what was counted of the account
	counted   func() error
	known     bool
	settled   bool
	back      []func() error // what is being given back
	cancel    func()
}

// Begin begins to count a sign-in.
func (t *Throttle) Begin(ctx context.Context, c endpoint.Caller, email string) *Try {
	y := &Try{throttle: t, ctx: ctx, caller: c, email: email, admitted: nothing, counted: nothing}
	switch y.full = t.believedFull(Signin, t.subject(c)); {
	case y.full != nil:
		y.admitted = y.Full
	case !t.off:
		y.admitted = begin(func() (err error) {
			y.addressID, err = t.admit(ctx, Signin, t.subject(c))
			return err
		})
	}
	return y
}

func nothing() error { return nil }

// Full returns a fault of kind TooMany where the address is known to have used up its
// limit: it was found so a moment ago. It asks nobody, so a flood that goes on all the
// same costs the database next to nothing.
func (y *Try) Full() error { return y.full }

// Admitted returns a fault of kind TooMany where the address has used up its limit.
func (y *Try) Admitted() error { return y.admitted() }

// Device is what Throttle.Device makes of the call.
func (y *Try) Device(userID string) string { return y.throttle.Device(y.caller, userID) }

// Count begins to count a try for the account; a second call is the same as the
// first. Known says that it comes from a device of the account: then it counts for
// that, and otherwise for all strangers together.
//
// What it returns waits for the count: ErrEarly where the password must not count,
// whatever it is, and a fault of kind Unavailable where the database does not answer or
// too many tries of the account are under way. A password that was not counted must not
// be looked at.
func (y *Try) Count(known bool) (counted func() error) {
	if y.throttle.off || y.accountID != "" {
		return y.counted
	}
	y.known, y.accountID = known, "account:"+digest(y.email)
	if known {
		y.accountID = "device:" + digest(y.email, y.throttle.subject(y.caller))
	}
	y.counted = begin(func() error { return y.throttle.enter(y.ctx, y.accountID) })
	return y.counted
}

// Wrong says that the password was wrong, or did not count. What was counted stays, and
// is no longer under way. One that was refused notes the same of itself, so that it
// takes as long.
func (y *Try) Wrong() {
	if y.settled || y.accountID == "" {
		return
	}
	y.settled = true
	member := "wrong"
	if errors.Is(y.counted(), ErrEarly) {
		member = "refused"
	}
	ctx := y.outlasting()
	y.back = append(y.back, begin(func() error { return y.throttle.note(ctx, y.accountID, member) }))
}

// Right says that it was right, and begins to give back what was counted.
func (y *Try) Right() { y.giveBack(true) }

// End waits for what was begun. Where nothing was learnt of the password, it gives
// back what was counted.
func (y *Try) End() {
	if y.admitted() == nil && !errors.Is(y.counted(), ErrEarly) {
		y.giveBack(false)
	}
	for _, wait := range y.back {
		if err := wait(); err != nil {
			y.throttle.log.WarnContext(y.ctx, "a count was not settled", "error", err)
		}
	}
	if y.cancel != nil {
		y.cancel()
	}
}

// giveBack begins to give back what was counted, once: of the address all but what
// every sign-in weighs, since one that came to nothing has cost something too; of the
// account the try. A device from which the password was right starts anew: its
// failures were its owner's.
//
// It is one command, so that a sign-in never has more than two commands in flight and
// needs no third connection.
func (y *Try) giveBack(right bool) {
	if y.settled {
		return
	}
	y.settled = true
	var changes []mongo.WriteModel
	if y.addressID != "" {
		changes = append(changes, less(y.addressID, Signin.weight-1))
	}
	switch {
	case y.accountID == "" || y.counted() != nil:
	case right && y.known:
		changes = append(changes, none(y.accountID))
	default:
		changes = append(changes, less(y.accountID, 1))
	}
	if len(changes) > 0 {
		ctx := y.outlasting()
		y.back = append(y.back, begin(func() error { return y.throttle.change(ctx, changes...) }))
	}
}

// outlasting is what a count is settled in: of a caller that has left too.
func (y *Try) outlasting() (ctx context.Context) {
	ctx, y.cancel = context.WithTimeout(context.WithoutCancel(y.ctx), y.patience())
	return ctx
}

// patience is how long it may take to settle: where the time of the request has run
// out, no longer than its caller still waits, who was promised an answer.
func (y *Try) patience() time.Duration {
	deadline, limited := y.ctx.Deadline()
	if !limited {
		return patience
	}
	return min(patience, max(time.Until(deadline), 0)+overtime)
}

// overtime is what is left of a caller's five seconds when the budget of a request has
// run out, but for the way back.
const overtime = 250 * time.Millisecond

// rounds bounds how often a count begins anew because another was faster: one that
// began it, one that was the last free one, one that was let in after a wait. Then
// that other is refused the next time, or it is.
const rounds = 8

// The pauses of a try that waits for those under way: 50, 100, 200 and 400 ms, in all
// as long as one waits for a hash, which goes on beside it.
const firstPause, lastPause = 50 * time.Millisecond, 400 * time.Millisecond

// enter counts a try, or returns ErrEarly. Where tries under way leave no room, it
// waits for them and then returns a fault of kind Unavailable.
func (t *Throttle) enter(ctx context.Context, id string) error {
	c, err := t.collection(ctx)
	if err != nil {
		return err
	}
	for pause := firstPause; ; pause *= 2 {
		err := t.count(ctx, c, id)
		switch {
		case !errors.Is(err, errUndecided):
			return err
		case pause > lastPause:
			return fault.Busy(time.Second, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return database.Translate("wait for tries under way", ctx.Err())
		}
	}
}

// count counts a try, or returns ErrEarly or errUndecided. Of any number of tries at
// once, from any number of processes, as many are let in as next allows one after the
// other: each is a write whose filter holds what it was decided on.
func (t *Throttle) count(ctx context.Context, c *mongo.Collection, id string) error {
	for range rounds {
		var f failures
		err := database.Read(c.FindOne(ctx, bson.D{{Key: "_id", Value: id}}), &f)
		unknown := errors.Is(err, mongo.ErrNoDocuments)
		if err != nil && !unknown {
			return database.Translate("find failures", err)
		}
		now, err := t.time(ctx, c)
		if err != nil {
			return err
		}
		next, err := f.next(now)
		if errors.Is(err, ErrEarly) { // nothing is decided by this, but it takes as long as to be let in
			return cmp.Or(t.note(ctx, id, "early"), err)
		}
		if err != nil {
			return err
		}
		won, err := t.swap(ctx, c, id, unknown, f, next)
		if err != nil || won {
			return err
		}
	}
	return errUndecided
}

// swap writes the next state, if what it was decided on still holds. While tries are
// free that is only that they are; so those who sign in at once do not hold each other
// up.
func (t *Throttle) swap(ctx context.Context, c *mongo.Collection, id string, unknown bool, f, next failures) (won bool, err error) {
	members := bson.D{{Key: "n", Value: next.N}, {Key: "last", Value: next.Last}, {Key: "expiresAt", Value: next.expires()}}
	if next.N == 1 {
		members = append(members, bson.E{Key: "wrong", Value: 0})
	}
	if unknown {
		_, err := c.InsertOne(ctx, append(bson.D{{Key: "_id", Value: id}}, members...))
		if mongo.IsDuplicateKeyError(err) {
			return false, nil
		}
		return err == nil, database.Translate("count a try", err)
	}
	filter := bson.D{{Key: "_id", Value: id}, {Key: "n", Value: f.N}, {Key: "last", Value: f.Last}}
	update := bson.D{{Key: "$set", Value: members}}
	if f.N < free && next.N > 1 {
		filter = bson.D{{Key: "_id", Value: id}, {Key: "n", Value: bson.D{{Key: "$lt", Value: free}}},
			{Key: "last", Value: bson.D{{Key: "$gt", Value: next.Last.Add(-quiet)}}}}
		update = bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}, {Key: "$set", Value: members[1:]}}
	}
	result, err := c.UpdateOne(ctx, filter, update)
	if err != nil {
		return false, database.Translate("count a try", err)
	}
	return result.MatchedCount == 1, nil
}

// note counts what a try has come to.
func (t *Throttle) note(ctx context.Context, id, member string) error {
	c, err := t.collection(ctx)
	if err != nil {
		return err
	}
	_, err = c.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}}, bson.D{{Key: "$inc", Value: bson.D{{Key: member, Value: 1}}}})
	return database.Translate("note how a try went", err)
}
