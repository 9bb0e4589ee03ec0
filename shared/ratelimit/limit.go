package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/mongodb"
)

// A Limit is a number of requests in a window. Windows are contiguous and the same for all
// clients.
type Limit struct {
	Name   string
	Quota  int
	Window time.Duration
}

// defaults are the limits without their settings. They are far above the need of one user,
// since a household, an office or a mobile carrier's NAT can have a single address.
var defaults = []Limit{
	{"signup", 60, 10 * time.Minute},
	{"signin", 1000, 5 * time.Minute}, // or 100 that fail
	{"refresh", 1200, time.Minute},    // 18,000 sessions; a refresh token cannot be guessed
	{"confirmation", 60, 10 * time.Minute},
	{"session", 30, time.Minute}, // per session, once its address is at its limit
}

// failureWeight is the number of requests that a failed sign-in counts as.
const failureWeight = 10

// Default returns the default limit of a name, and whether it exists.
func Default(name string) (Limit, bool) {
	for _, d := range defaults {
		if d.Name == name {
			return d, true
		}
	}
	return Limit{}, false
}

const maxQuota = 1_000_000

var setting = regexp.MustCompile(`^([1-9][0-9]{0,6})/([0-9a-z]+)$`)

// Signup returns the limit of RATE_LIMIT_SIGNUP.
func Signup(cfg *config.Config) Limit { return limit(cfg, "RATE_LIMIT_SIGNUP", "signup", 1) }

// Signin returns the limit of RATE_LIMIT_SIGNIN.
func Signin(cfg *config.Config) Limit {
	return limit(cfg, "RATE_LIMIT_SIGNIN", "signin", failureWeight)
}

// Refresh returns the limit of RATE_LIMIT_REFRESH.
func Refresh(cfg *config.Config) Limit { return limit(cfg, "RATE_LIMIT_REFRESH", "refresh", 1) }

// Confirmation returns the limit of RATE_LIMIT_CONFIRMATION, for requests that request a mail or present a
// token or a code of one.
func Confirmation(cfg *config.Config) Limit {
	return limit(cfg, "RATE_LIMIT_CONFIRMATION", "confirmation", 1)
}

// Session returns the limit of RATE_LIMIT_SESSION.
func Session(cfg *config.Config) Limit { return limit(cfg, "RATE_LIMIT_SESSION", "session", 1) }

// limit reads a setting such as 1000/5m.
func limit(cfg *config.Config, env, name string, least int) Limit {
	l, _ := Default(name)
	text := cfg.Text(env, "")
	if text == "" {
		return l
	}
	if m := setting.FindStringSubmatch(text); m != nil {
		quota, _ := strconv.Atoi(m[1])
		window, err := time.ParseDuration(m[2])
		if err == nil && quota >= least && quota <= maxQuota && window >= time.Second && window <= 24*time.Hour && window%time.Second == 0 {
			return Limit{name, quota, window}
		}
	}
	cfg.Problem(env, fmt.Sprintf("must be a number of requests and a window, such as %d/%s: %d to %d requests, 1s to 24h in whole seconds",
		l.Quota, short(l.Window), least, maxQuota))
	return l
}

func short(d time.Duration) string { return strconv.Itoa(int(d/time.Minute)) + "m" }

// addressTimeout bounds the update of an address counter. That counter protects the capacity
// of the system, not a secret: if the database does not answer in time, the request proceeds.
const addressTimeout = time.Second

// undecidedWait is the Retry-After of a request that is rejected because of attempts in
// flight.
const undecidedWait = time.Second

// For rejectionTTL, a process does not query the database again for a counter at its limit. So
// a flood of rejected requests costs the database almost nothing.
const (
	rejectionTTL  = time.Second
	maxRejections = 4096 // about 100 bytes each
)

// A rejection describes a counter at its limit.
type rejection struct {
	expires time.Time
	reset   time.Time // when the client may try again
}

// Allow counts a request of a client address. It returns an API error of kind TooMany if the
// limit is reached. It costs one command.
func (l *Limiter) Allow(ctx context.Context, limit Limit, c endpoint.Client) error {
	return l.allow(ctx, limit, func() []counter { return l.addressCounters(limit, c, 1) })
}

// Addresses returns the rate limit of client addresses with a name.
func Addresses(name string, limit func(*config.Config) Limit) endpoint.Limit {
	return endpoint.Limit{Name: name, New: func(cfg *config.Config) endpoint.Allow {
		limiter, l := FromConfig(cfg), limit(cfg)
		return func(ctx context.Context, c endpoint.Client) error { return limiter.Allow(ctx, l, c) }
	}}
}

// AllowSession counts a request of a session, as Allow does for an address.
func (l *Limiter) AllowSession(ctx context.Context, limit Limit, sid string) error {
	return l.allow(ctx, limit, func() []counter { return []counter{l.window(limit, sid, 1)} })
}

// codes is the limit of the codes that clients present for one subject. At this rate an attacker guesses a
// code of six digits with a probability of 10⁻⁴ a day.
var codes = Limit{"code", 5, time.Hour}

// AllowCode counts a code that a client presents for a subject, before the code is compared. Unlike
// Allow, it applies in all modes of RATE_LIMIT, and it returns an error if the database does not answer:
// a code has few digits.
func (l *Limiter) AllowCode(ctx context.Context, subject ...string) error {
	_, err := l.reserve(ctx, func() []counter { return []counter{l.window(codes, strings.Join(subject, "\x00"), 1)} })
	return err
}

// Forget resets the failed attempts of an account, after its owner has proved control of the email. It
// logs an error: the wait of the account then ends by itself.
func (l *Limiter) Forget(ctx context.Context, email string) {
	c, err := l.collection(ctx)
	if err == nil {
		_, err = c.UpdateOne(ctx, bson.D{{Key: "_id", Value: account(email).id}}, bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: 0}, {Key: "pending", Value: 0}}}})
	}
	if err != nil {
		l.log.WarnContext(ctx, "the failed attempts of an account were not reset", "error", mongodb.Translate("reset attempts", err))
	}
}

func (l *Limiter) allow(ctx context.Context, limit Limit, counters func() []counter) error {
	if !l.addresses {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	_, err := l.reserve(ctx, counters)
	if err != nil && apierror.From(err).Kind() != apierror.TooMany {
		l.log.WarnContext(ctx, "a request was not counted", "limit", limit.Name, "error", err)
		return nil
	}
	return err
}

// A counter is one document and the amount that an attempt adds to it.
type counter struct {
	id     string
	limit  Limit
	weight int       // added to n
	end    time.Time // of the window; zero for an account
}

// addressCounters returns the counters of a client in the current window.
func (l *Limiter) addressCounters(limit Limit, c endpoint.Client, weight int) []counter {
	if !l.addresses {
		return nil
	}
	a := l.client(c)
	if !a.Is6() {
		return []counter{l.window(limit, a.String(), weight)} // clients without an address share one counter
	}
	site := limit
	site.Quota *= siteFactor
	return []counter{
		l.window(limit, netip.PrefixFrom(a, 64).Masked().String(), weight),
		l.window(site, netip.PrefixFrom(a, 48).Masked().String(), weight),
	}
}

// siteFactor is the ratio of the limit of a /48 to that of a /64. One customer often has a /56
// or a /48 and so can use many /64s (RFC 6177).
const siteFactor = 16

func (l *Limiter) window(limit Limit, subject string, weight int) counter {
	end := l.clock.now().Truncate(limit.Window).Add(limit.Window)
	return counter{fmt.Sprintf("%s:%s:%d", limit.Name, digest(subject), end.Unix()), limit, weight, end}
}

// reserve counts an attempt in all counters, in order and in one command. It returns the
// counters that have counted the attempt, also with an error. If the reply of the database is
// lost, further counters may have counted it. The attempt then counts as a failure, and its
// reservation ends after maxInFlight. The error for the first counter at its limit is of kind
// TooMany. reserve calls counters after it has read the database's time, which decides the window.
func (l *Limiter) reserve(ctx context.Context, counters func() []counter) ([]counter, error) {
	c, err := l.collection(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.setClock(ctx, c); err != nil {
		return nil, err
	}
	all := counters()
	if err := l.cached(all); err != nil {
		return nil, err
	}
	done := 0
	for round := 0; done < len(all); round++ {
		if round == rounds {
			return all[:done], all[done].limit.rejected(undecidedWait)
		}
		now := l.clock.now()
		var models []mongo.WriteModel
		var updated []int // the index of the counter of each model
		for i := done; i < len(all); i++ {
			if all[i].end.IsZero() {
				models, updated = append(models, all[i].expiry(now)), append(updated, i)
			}
			models, updated = append(models, all[i].reservation(now)), append(updated, i)
		}
		_, err := c.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(true))
		if err == nil {
			return all, nil
		}
		done = updated[failedIndex(err)]
		if !mongo.IsDuplicateKeyError(err) {
			return all[:done], mongodb.Translate("count an attempt", err)
		}
		passed, err := l.inspect(ctx, c, all[done])
		if err != nil {
			return all[:done], err
		}
		if passed {
			done++
		}
	}
	return all, nil
}

// rounds bounds the repetitions of a reservation that conflicts with other attempts.
const rounds = 8

// reservation returns the conditional update that counts an attempt.
func (c counter) reservation(now time.Time) *mongo.UpdateOneModel {
	most, add := c.limit.Quota-c.weight, bson.D{{Key: "n", Value: c.weight}}
	set := bson.D{{Key: "expiresAt", Value: c.end.Add(c.limit.Window)}} // later than the window: the clock of a replica set member may be behind
	if c.end.IsZero() {
		set = accountTimes(now, 0)
	}
	if c.pends() {
		add = append(add, bson.E{Key: "pending", Value: 1})
	}
	return mongo.NewUpdateOneModel().SetUpsert(true).
		SetFilter(bson.D{{Key: "_id", Value: c.id}, {Key: "n", Value: bson.D{{Key: "$lte", Value: most}}}}).
		SetUpdate(bson.D{{Key: "$inc", Value: add}, {Key: "$set", Value: set}})
}

// pends reports whether an attempt is undecided until it is settled.
func (c counter) pends() bool { return c.end.IsZero() || c.weight > 1 }

// failedIndex returns the index of the update that failed, or 0 if the command failed.
func failedIndex(err error) int {
	if e, is := err.(mongo.BulkWriteException); is && len(e.WriteErrors) > 0 {
		return e.WriteErrors[0].Index
	}
	return 0
}

// inspect reads a counter that did not match the conditional update of an attempt. It returns
// an error of kind TooMany if the counter is at its limit. It returns true if it has counted
// the attempt, as for an account after its wait. It returns false if the caller must repeat
// the update.
func (l *Limiter) inspect(ctx context.Context, c *mongo.Collection, counter counter) (bool, error) {
	var s state
	err := mongodb.Read(c.FindOne(ctx, bson.D{{Key: "_id", Value: counter.id}}), &s)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, nil
	}
	if err != nil {
		return false, mongodb.Translate("read a counter", err)
	}
	now := l.clock.now()
	if counter.end.IsZero() {
		return l.compareAndSet(ctx, c, counter, s, now)
	}
	if s.N+counter.weight <= counter.limit.Quota {
		return false, nil
	}
	r := rejection{expires: now.Add(rejectionTTL), reset: counter.end}
	if s.N-s.Pending*failureWeight+counter.weight <= counter.limit.Quota { // attempts in flight alone fill it
		r.reset = now.Add(undecidedWait)
	}
	l.reject(counter.id, r)
	return false, counter.limit.rejected(r.reset.Sub(now))
}

// reject stores the rejection of a counter in memory.
func (l *Limiter) reject(id string, r rejection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.full) >= maxRejections {
		clear(l.full)
	}
	l.full[id] = r
}

// cached returns the error of the first counter with a rejection in memory.
func (l *Limiter) cached(counters []counter) error {
	now := l.clock.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range counters {
		if r := l.full[c.id]; r.expires.After(now) {
			return c.limit.rejected(r.reset.Sub(now))
		}
	}
	return nil
}

// rejected returns the error for a client that may try again after a wait.
func (l Limit) rejected(wait time.Duration) error {
	return apierror.Limited(l.Name, l.Quota, l.Window, wait)
}
