// Package ratelimit limits requests per client address, per session and per account, in all
// processes together. Its state is in the database:
//
//	ratelimits: { _id: "<limit>:<digest of the network or session>:<end of the window>", n, pending, expiresAt }
//	            { _id: "account:<digest of the email>",            n, pending, at, expiresAt }
//	            { _id: "device:<digest of the email and token>",   n, pending, at, expiresAt }
//
// # Policy
//
// Account. An account admits ten failed sign-in attempts. After them, each attempt must wait:
// 1 s at first, then twice as long each time, up to 15 minutes. An attempt within the wait, or
// beyond ten in flight, is rejected with 429 before its password is checked. The right password
// and an email without an account get the same response. A success resets the failures before
// it, unless other attempts are in flight.
//
// NIST SP 800-63B-4 section 3.2.2 asks for at most 100 consecutive failures before an
// authenticator is disabled, and recommends growing waits. With disabling, an attacker could
// lock the owner out. Here, an attacker has about 100 attempts a day. OWASP ASVS 5.0.0
// requirements 6.1.1 and 6.3.1 ask for a limit that prevents malicious lockout. So a client
// with the device token of an earlier sign-in has a separate counter.
//
// Address. Each request counts, also one with invalid input, before it costs anything
// expensive. A failed sign-in counts as ten requests. A sign-in in flight is undecided: it
// counts as failed until it is settled. A request that is rejected because of attempts in
// flight receives Retry-After: 1, not the end of the window. An IPv6 client counts for its
// /64; the surrounding /48 has 16 times the limit. One address can be the NAT of many users,
// so the limits are far above the need of one user.
//
// # Atomicity
//
// A sign-in costs two commands. The first command reserves one attempt in every counter, with
// one conditional update each: {_id: x, n: {$lte: limit}}, {$inc: {n: 1}}, upsert. MongoDB
// applies an update of a single document atomically and checks its filter again after a
// write conflict. So no other write comes between the condition and the increment. A counter
// at its limit does not match; the upsert then fails with E11000, since _id is unique. So of any
// number of parallel attempts in any number of processes, at most the limit pass. The updates
// are ordered: an attempt that exceeds the limit of its address reserves nothing of the
// account. The second command settles the reservation, while the function opens the session.
//
// An account with ten failures takes another path: a read, and a compare-and-set on all
// values that the decision used. The reservations of a killed process remain as failures, but
// are no longer in flight after maxInFlight.
//
// All times are those of the database's clock, so a process with a wrong clock counts like all
// others.
//
// A write waits for the primary alone. If a failover loses the last writes, an attacker gains a
// few attempts. A wait for a majority would delay every sign-in.
//
// The database stores emails, addresses and tokens as digests without a key, for a day. An
// attacker with the database can find an address by trying all addresses.
package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/mongodb"
)

// A Limiter counts requests. It is safe for concurrent use.
type Limiter struct {
	Proxies

	database  *mongodb.Connection
	accounts  bool          // whether accounts are limited
	addresses bool          // whether addresses and sessions are limited
	timeout   time.Duration // addressTimeout, except in tests
	clock     clock
	log       *slog.Logger

	mu   sync.Mutex
	full map[string]rejection // counters found at their limit
}

// FromConfig returns the limiter of RATE_LIMIT, TRUSTED_PROXIES, PROXY_NETWORKS and the
// settings of mongodb.FromConfig.
func FromConfig(cfg *config.Config) *Limiter {
	return config.Part(cfg, "ratelimit", func() *Limiter {
		mode := cfg.Text("RATE_LIMIT", "on")
		if mode != "on" && mode != "accounts" && mode != "off" {
			cfg.Problem("RATE_LIMIT", "must be on, accounts or off")
		}
		if cfg.Text("THROTTLE", "") != "" {
			cfg.Problem("THROTTLE", "is replaced by RATE_LIMIT")
		}
		return &Limiter{
			database:  mongodb.FromConfig(cfg),
			accounts:  mode != "off",
			addresses: mode == "on",
			Proxies:   ProxiesFromConfig(cfg),
			timeout:   addressTimeout,
			clock:     clock{own: cfg.Now()},
			log:       cfg.Log(),
			full:      map[string]rejection{},
		}
	})
}

// collection returns the collection of the counters.
func (l *Limiter) collection(ctx context.Context) (*mongo.Collection, error) {
	c, err := l.database.Collection(ctx, Collection)
	if err != nil {
		return nil, err
	}
	return c.Clone(options.Collection().SetWriteConcern(writeconcern.W1()).SetReadConcern(readconcern.Local())), nil
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// start runs work in a goroutine and returns a function that waits for it and returns its
// error. A handler must call that function before it responds. A panic in work becomes an
// error.
func start(work func() error) (wait func() error) {
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
