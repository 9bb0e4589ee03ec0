// Package journal records the results of mails, and limits the mails to each recipient:
//
//	mails: { _id: "<key of the event>", owner, until, result, sentAt?, expiresAt }
//	       { _id: "<purpose>:<digest of the address>:<day>", n, hours: {<hour>: n}, events: {<key>: true}, expiresAt }
//
// # Claims
//
// A process claims the event before it sends the mail. A claim is an insert, or an update after the
// lease of an earlier claim has ended without a result. MongoDB applies both atomically, so of all processes
// that receive an event only one sends its mail at a time. A process that is killed leaves its claim,
// and another process can take it at the end of the lease.
//
// # Limits
//
// A recipient receives at most three mails of a purpose in an hour and ten in a day. Each event
// counts once, however often it is delivered: the counter stores the keys of the events that it has
// counted, at most ten. The conditions and the increments are one update, as in package ratelimit.
// Windows are contiguous and the same for all recipients. An attacker that causes mails of one
// purpose does not affect those of another one.
//
// The times are those of the process. Lease allows for processes whose clocks differ.
//
// The database has no address, only a digest of it without a key. An attacker with the database can
// find an address by trying all addresses.
package journal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mongodb"
)

// Collection is the collection of the claims and the counters. Its index deletes expired ones.
var Collection = &endpoint.Collection{
	Database: "users",
	Name:     "mails",
	Indexes:  []endpoint.Index{{Keys: []string{"expiresAt"}, Expires: true}},
}

// Recording is the need of a function that uses the journal.
var Recording = Collection.Grant(endpoint.Find, endpoint.Insert, endpoint.Update)

const (
	// Lease is the duration of a claim. It exceeds the time limit of the function by more than the
	// 30 s by which the clocks of two processes can differ.
	Lease = time.Minute

	// Retention is the time for which the result of a mail is stored. A function must reject events
	// that are older, so that no mail is sent again.
	Retention = 8 * 24 * time.Hour

	// expiryMargin allows for a database with another clock.
	expiryMargin = time.Hour
)

// A Result is the final result of a mail. The empty Result means that there is none yet.
type Result string

// The results.
const (
	Sent    Result = "sent"
	Limited Result = "limited" // not sent: the recipient has reached a limit
	Refused Result = "refused" // by the mail server
	Address Result = "address" // the address cannot receive mail
)

// A Journal is safe for concurrent use.
type Journal struct {
	database *mongodb.Connection
	now      func() time.Time
}

// FromConfig returns the journal in the database of mongodb.FromConfig.
func FromConfig(cfg *config.Config) *Journal {
	return config.Part(cfg, "mail journal", func() *Journal { return &Journal{mongodb.FromConfig(cfg), cfg.Now()} })
}

// A Claim is the exclusive right to send the mail of an event, until its lease ends.
type Claim struct {
	// Unanswered is the number of earlier transfers that the mail server may have accepted.
	Unanswered int

	journal *Journal
	key     string
	owner   string
}

// A Held is the error of Claim for an event that another process has claimed.
type Held struct {
	For time.Duration // until the lease ends
}

func (*Held) Error() string { return "another process is sending the mail" }

// Claim claims an event by its key. If the event has a result, Claim returns it and no claim. If
// another process has claimed the event, the error is a *Held.
func (j *Journal) Claim(ctx context.Context, key string) (*Claim, Result, error) {
	c, err := j.database.Collection(ctx, Collection)
	if err != nil {
		return nil, "", err
	}
	now := j.now()
	claim := &Claim{journal: j, key: key, owner: rand.Text()}
	set := bson.D{{Key: "owner", Value: claim.owner}, {Key: "until", Value: now.Add(Lease)}}
	_, err = c.InsertOne(ctx, append(bson.D{{Key: "_id", Value: key}, {Key: "result", Value: ""},
		{Key: "expiresAt", Value: now.Add(Retention + expiryMargin)}}, set...))
	if err == nil {
		return claim, "", nil
	}
	if !mongo.IsDuplicateKeyError(err) {
		return nil, "", mongodb.Translate("claim a mail", err)
	}
	var stored struct {
		Result     Result    `bson:"result"`
		Until      time.Time `bson:"until"`
		Unanswered int       `bson:"unanswered"`
	}
	err = mongodb.Read(c.FindOne(ctx, bson.D{{Key: "_id", Value: key}}), &stored)
	switch {
	case errors.Is(err, mongo.ErrNoDocuments): // deleted by its TTL index in between
		return nil, "", &Held{}
	case err != nil:
		return nil, "", mongodb.Translate("read a mail", err)
	case stored.Result != "":
		return nil, stored.Result, nil
	case stored.Until.After(now):
		return nil, "", &Held{stored.Until.Sub(now)}
	}
	taken, err := c.UpdateOne(ctx, bson.D{{Key: "_id", Value: key}, {Key: "result", Value: ""}, {Key: "until", Value: bson.D{{Key: "$lte", Value: now}}}},
		bson.D{{Key: "$set", Value: set}})
	if err != nil {
		return nil, "", mongodb.Translate("claim a mail", err)
	}
	if taken.MatchedCount == 0 { // another process was first
		return nil, "", &Held{}
	}
	claim.Unanswered = stored.Unanswered
	return claim, "", nil
}

// Finish stores the result of a mail. It also stores Sent after the lease has ended, because the
// mail was sent then too.
func (c *Claim) Finish(ctx context.Context, r Result) error {
	filter, set := bson.D{{Key: "_id", Value: c.key}}, bson.D{{Key: "result", Value: r}}
	if r == Sent {
		set = append(set, bson.E{Key: "sentAt", Value: c.journal.now()})
	} else {
		filter = append(filter, bson.E{Key: "owner", Value: c.owner})
	}
	return c.update(ctx, "record a mail", filter, set)
}

// Release ends the lease, so that another delivery of the event can send the mail at once. It counts a
// transfer that the mail server has not answered.
func (c *Claim) Release(ctx context.Context, unanswered bool) error {
	set := bson.D{{Key: "until", Value: c.journal.now()}}
	if unanswered {
		set = append(set, bson.E{Key: "unanswered", Value: c.Unanswered + 1}) // not $inc: the caller can repeat it
	}
	return c.update(ctx, "release a mail", bson.D{{Key: "_id", Value: c.key}, {Key: "owner", Value: c.owner}, {Key: "result", Value: ""}}, set)
}

func (c *Claim) update(ctx context.Context, step string, filter, set bson.D) error {
	collection, err := c.journal.database.Collection(ctx, Collection)
	if err != nil {
		return err
	}
	_, err = collection.UpdateOne(ctx, filter, bson.D{{Key: "$set", Value: set}})
	return mongodb.Translate(step, err)
}

// The limits of mails of a purpose to a recipient.
const (
	perHour = 3
	perDay  = 10
)

// Allow counts the mail of the claim, and reports whether the recipient may receive it. A second
// call for the same event counts nothing.
func (c *Claim) Allow(ctx context.Context, purpose event.Purpose, to string) (bool, error) {
	collection, err := c.journal.database.Collection(ctx, Collection)
	if err != nil {
		return false, err
	}
	now := c.journal.now().UTC()
	hour := strconv.Itoa(now.Hour())
	day := now.Truncate(24 * time.Hour)
	id := fmt.Sprintf("%s:%s:%s", purpose, digest(to), day.Format(time.DateOnly))
	inHour, counted := "hours."+hour, "events."+c.key // a key is hexadecimal
	for {
		_, err = collection.UpdateOne(ctx,
			bson.D{
				{Key: "_id", Value: id},
				{Key: "n", Value: bson.D{{Key: "$lt", Value: perDay}}},
				{Key: inHour, Value: bson.D{{Key: "$not", Value: bson.D{{Key: "$gte", Value: perHour}}}}},
				{Key: counted, Value: bson.D{{Key: "$exists", Value: false}}},
			},
			bson.D{
				{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}, {Key: inHour, Value: 1}}},
				{Key: "$set", Value: bson.D{{Key: counted, Value: true}, {Key: "expiresAt", Value: day.Add(48 * time.Hour)}}},
			},
			options.UpdateOne().SetUpsert(true))
		switch {
		case err == nil:
			return true, nil
		case !mongo.IsDuplicateKeyError(err): // the counter exists, and does not match
			return false, mongodb.Translate("count a mail", err)
		}
		var counter struct {
			N      int             `bson:"n"`
			Hours  map[string]int  `bson:"hours"`
			Events map[string]bool `bson:"events"`
		}
		if err := mongodb.Read(collection.FindOne(ctx, bson.D{{Key: "_id", Value: id}}), &counter); err != nil {
			return false, mongodb.Translate("read a counter", err)
		}
		switch {
		case counter.Events[c.key]:
			return true, nil
		case counter.N >= perDay || counter.Hours[hour] >= perHour:
			return false, nil
		}
		// two first mails of a day raced for the insert of the counter
	}
}

// digest returns 128 bits of SHA-256, in hexadecimal digits.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}
