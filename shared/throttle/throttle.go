// Package throttle bounds how often somebody may try: how many sign-ups, sign-ins
// and refreshes come from one address, and how many wrong passwords an account takes.
// What it counts is in the database, in a collection of its own, so that it holds
// however many processes there are, and after each of them was scaled to zero:
//
//	throttles: { _id: "<limit>:<digest of the address, or session>:<window>", n, at, expiresAt }
//	           { _id: "account:<digest of the email>", n, wrong, last, early?, refused?, expiresAt }
//	           { _id: "device:<digest of both>",       n, wrong, last, early?, refused?, expiresAt }
//
// It is called by signup, signin and refresh. It does not bound how many hashes run
// at once: that is the gate of package password. It decides nothing about a password,
// and it does not know which accounts exist: an email that nobody has is counted as
// any other, by the same commands.
//
// Every change is one atomic write of one document, of those that MongoDB and the
// embedded server do alike. Expiry is checked in every read; the TTL index is a broom.
//
// Time is the database's, so that a process whose clock is wrong counts as the others do.
//
// Emails and addresses are kept as digests. They are not keyed: who has the database
// can learn an address by trying all of them, for the minutes that it is kept. What
// they keep is that nobody reads them by chance.
package throttle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/database"
	"ticketing.com/auth/shared/endpoint"
)

// A Throttle counts tries. It is safe for concurrent use.
type Throttle struct {
	database *database.Connection
	off      bool
	blind    bool // nobody's address is known: accounts are all that is counted
	hops     int  // as TRUSTED_PROXIES
	clock    clock
	log      *slog.Logger

	mu   sync.Mutex
	full map[string]time.Time // limits that were found used up, and until when that is believed
}

// Wire returns the throttle of the environment: THROTTLE, TRUSTED_PROXIES, and what
// database.Wire asks for.
func Wire(w *app.Wiring) *Throttle {
	return app.Part(w, "throttle", func() *Throttle {
		mode := w.Text("THROTTLE", "on")
		if mode != "on" && mode != "accounts" && mode != "off" {
			w.Fault("THROTTLE", "must be on, accounts or off")
		}
		return &Throttle{
			database: database.Wire(w),
			off:      mode == "off",
			blind:    mode == "accounts",
			hops:     w.Number("TRUSTED_PROXIES", 0, 0, 16),
			clock:    clock{own: w.Now()},
			log:      w.Log(),
			full:     map[string]time.Time{},
		}
	})
}

// Prepare creates the index that sweeps out what has expired. Where the server has
// none of the kind, as the embedded one, it sweeps now. It may be repeated.
func (t *Throttle) Prepare(ctx context.Context) error {
	c, err := t.collection(ctx)
	if err != nil {
		return err
	}
	_, err = c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: "expiresAt", Value: 1}}, Options: options.Index().SetExpireAfterSeconds(0)})
	if server, is := errors.AsType[mongo.ServerError](err); is && server.HasErrorCode(notImplemented) {
		var now time.Time
		if now, err = t.time(ctx, c); err != nil {
			return err
		}
		_, err = c.DeleteMany(ctx, bson.D{{Key: "expiresAt", Value: bson.D{{Key: "$lt", Value: now}}}})
	}
	return database.Translate("sweep out old counts", err)
}

// notImplemented is how a server says that it has no TTL index.
const notImplemented = 238

// collection returns the collection of the counters. Its writes wait for the primary alone and
// its reads see them: a fail-over that loses the last counts gives an attacker a few attempts
// more, and waiting for a majority would cost every sign-in a round trip between members.
func (t *Throttle) collection(ctx context.Context) (*mongo.Collection, error) {
	c, err := t.database.Collection(ctx, "throttles")
	if err != nil {
		return nil, err
	}
	return c.Clone(options.Collection().SetWriteConcern(writeconcern.W1()).SetReadConcern(readconcern.Local())), nil
}

// Device names the place that a call comes from, to be kept with the account that was
// signed in to from there: whoever tries that account from the same place later is
// not stopped by what strangers did. It is "" where nothing goes by addresses.
//
// It is 20 bits of a digest: enough that one stranger in a million passes for a
// device of somebody's, and so few that each stands for thousands of addresses. The
// account keeps it for weeks, and it should not become a diary of where somebody was.
func (t *Throttle) Device(c endpoint.Caller, userID string) string {
	if t.off || t.blind {
		return ""
	}
	return digest("device of", userID, t.subject(c))[:5]
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// begin starts work that its caller waits for later, as it must: nothing runs on
// after an answer. A panic in it becomes its error, since nobody else could recover.
func begin(work func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("panic: a %T\n%s", p, debug.Stack())
			}
		}()
		done <- work()
	}()
	return sync.OnceValue(func() error { return <-done })
}
