// Package signup is the function that creates an account. For an HTTP request it also starts
// the first session. It is one of the three functions that hold the signing key.
package signup

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/credentials"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/receiver"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/origin"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/password/policy"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/user"
)

// Function serves POST /api/users/signup, and receives the event that requests the same.
var Function = endpoint.Function{
	Name: "signup",
	Needs: []endpoint.Need{
		accesstoken.Signing, session.Lifetime, password.Hashing, policy.Checking, sender.Publishing(event.SignedUp, event.SignedIn, event.SignedOut, event.MailRequested),
		user.Storing(endpoint.Find, endpoint.Insert, endpoint.Update), // Find reads the result of an earlier Idempotency-Key
		ratelimit.Counting("RATE_LIMIT_SIGNUP", "RATE_LIMIT_SIGNIN"),
	},
	Endpoints: []endpoint.Endpoint{endpoint.LimitRequests(endpoint.Define(endpoint.Spec{
		Method:  http.MethodPost,
		Path:    "/api/users/signup",
		Access:  endpoint.Public,
		Success: http.StatusCreated,
		Summary: "Create an account and start its first session.",
	}, newHandler, signup.create), endpoint.Limit{Name: "signup", New: limit})},
	Receivers: []endpoint.Receiver{receiver.On(endpoint.Receiver{
		Types:   []*event.Type{requested},
		Reply:   accepted,
		Refusal: refused,
		Summary: "Create an account.",
	}, newHandler, signup.handleEvent)},
}

var (
	requested = event.Define[Input]("com.ticketing.user.signup.requested.v1", "", "A service requests an account.")
	accepted  = event.Define[Accepted]("com.ticketing.user.signup.accepted.v1", event.Source, "The requested account exists.")
	refused   = event.Define[apierror.Errors]("com.ticketing.user.signup.refused.v1", event.Source, "The requested account was refused.")
)

// Input is an email and a new password.
type Input struct {
	endpoint.Keyed
	endpoint.Client
	origin.Origin
	Email    string `json:"email"`
	Password string `json:"password"`

	policy policy.Policy
}

// Configure gives Validate the password policy.
func (in *Input) Configure(cfg *config.Config) { in.policy = policy.FromConfig(cfg) }

// Validate checks the email and applies the password policy.
func (in *Input) Validate(bad *apierror.Fields) {
	if _, err := email.Parse(in.Email); err != nil {
		bad.Add("email", err.Error())
	}
	if err := in.policy.Check(in.Password, in.Email); err != nil {
		bad.Add("password", err.Error())
	}
}

// Members implements reference.Described.
func (Input) Members() []reference.Member {
	return []reference.Member{
		email.Member("email"),
		policy.Member("password"),
	}
}

// Accepted is the reply to an event. A broker forwards it, so it holds no token.
type Accepted struct {
	User user.User `json:"user"`
}

type signup struct {
	users       *user.Store
	passwords   *password.Hasher
	credentials *credentials.Checker
	grants      *session.Granter
	now         func() time.Time
}

// limit counts each request before the policy checks its password. If no hash slot is free, the
// request is rejected without a database command.
func limit(cfg *config.Config) endpoint.Allow {
	return allow(password.FromConfig(cfg), ratelimit.FromConfig(cfg), ratelimit.Signup(cfg))
}

func allow(passwords *password.Hasher, limiter *ratelimit.Limiter, limit ratelimit.Limit) endpoint.Allow {
	return func(ctx context.Context, c endpoint.Client) error {
		if err := passwords.Available(); err != nil {
			return err
		}
		return limiter.Allow(ctx, limit, c)
	}
}

func newHandler(cfg *config.Config) signup {
	return signup{user.FromConfig(cfg, sender.FromConfig(cfg)), password.FromConfig(cfg), credentials.FromConfig(cfg), session.FromConfig(cfg), cfg.Now()}
}

// create hashes the password before it knows whether the email is in use. A lookup first would
// decide nothing, because another request may take the email in between. It would also answer
// faster for an email that is in use.
//
// The id of an account is derived from the Idempotency-Key and the number of earlier uses of the
// key. A use that is older than keyLife does not answer the request, so create tries the next one.
// A retry of the request takes the same steps and finds the same id.
func (s signup) create(ctx context.Context, in Input) (session.Grant, error) {
	hash, err := s.passwords.Hash(ctx, in.Password)
	if err != nil {
		return session.Grant{}, err
	}
	address, _ := email.Parse(in.Email) // Validate has accepted it
	for uses := range keyUses {
		u := user.User{ID: accountID(in.Key, uses), Email: string(address)}
		grant, err := s.insert(ctx, u, hash, credentials.Device(in.Client.Device), in.Origin)
		if !errors.Is(err, user.ErrDuplicate) {
			return grant, err
		}
		account, err := s.earlier(ctx, u)
		expired := !account.CreatedAt.IsZero() && s.now().Sub(account.CreatedAt) > keyLife
		switch {
		case expired:
		case err != nil:
			return session.Grant{}, err
		default:
			return s.retry(ctx, in, account)
		}
	}
	return session.Grant{}, mismatch()
}

// accountID returns the id of the account of an Idempotency-Key with a number of earlier uses.
// Without a key, it returns a new id.
func accountID(key string, uses int) string {
	return session.IDFromKey(key + strings.Repeat("+", uses))
}

// insert creates the account and its first session. The device is a device token.
func (s signup) insert(ctx context.Context, u user.User, hash, device string, o origin.Origin) (session.Grant, error) {
	first, refresh := session.Open(u.ID, s.now(), s.grants.TTL())
	first.Origin = o.From
	if err := s.users.Create(ctx, user.Registration{User: u, Password: hash, First: &first, Device: credentials.Digest(device), Language: o.Language, Verify: true}); err != nil {
		return session.Grant{}, err
	}
	return s.grant(user.Profile{User: u}, first, refresh, device)
}

// handleEvent creates an account for another service. It has no rate limit, because that service
// is trusted. It opens no session, because no client would receive its tokens. A repeated
// delivery returns the account that the first delivery created.
func (s signup) handleEvent(ctx context.Context, in Input) (Accepted, error) {
	hash, err := s.passwords.Hash(ctx, in.Password)
	if err != nil {
		return Accepted{}, err
	}
	address, _ := email.Parse(in.Email) // Validate has accepted it
	u := user.User{ID: accountID(in.Key, 0), Email: string(address)}
	err = s.users.Create(ctx, user.Registration{User: u, Password: hash, Verify: true})
	if errors.Is(err, user.ErrDuplicate) {
		_, err = s.earlier(ctx, u)
	}
	return Accepted{u}, err
}

const (
	// keyLife is how long an Idempotency-Key identifies a request. After that, a request with
	// the same key is a new one.
	keyLife = 24 * time.Hour
	// keyUses is the number of accounts that one key may create. Each costs all later requests
	// with the key two commands.
	keyUses = 4
)

// retry answers a sign-up whose key was used with this email. If the password is that of the
// account, the client retries after it lost the first answer, and it gets a session. The
// password is compared with the stored hash; a digest of the request would be a second and
// weaker hash.
//
// A retry has the limits of a sign-in. Otherwise a client that knows the key could guess
// passwords here.
func (s signup) retry(ctx context.Context, in Input, account user.Account) (grant session.Grant, err error) {
	err = s.credentials.Check(ctx, credentials.Claim{
		Client:   in.Client,
		Email:    account.Email,
		Password: in.Password,
		Find:     func(context.Context) (user.Account, error) { return account, nil },
	}, func(ctx context.Context, p credentials.Proof) (err error) {
		if account.DeletesAt != nil {
			return credentials.ErrDisabled
		}
		opened, refresh := session.Open(account.ID, s.now(), s.grants.TTL())
		opened.Origin = in.From
		err = s.users.Open(ctx, account, opened, credentials.Digest(p.Device), "")
		if errors.Is(err, user.ErrChanged) {
			return apierror.Busy(time.Second, err)
		}
		if err == nil {
			grant, err = s.grant(account.Profile, opened, refresh, p.Device)
		}
		return err
	})
	switch {
	case errors.Is(err, credentials.ErrDisabled):
		err = emailInUse()
	case errors.Is(err, credentials.ErrWrong):
		err = mismatch()
	}
	return grant, err
}

func (s signup) grant(p user.Profile, opened user.Session, refresh session.Refresh, device string) (session.Grant, error) {
	grant, err := s.grants.Grant(p, opened, refresh, opened.CreatedAt)
	grant.Device = device
	return grant, err
}

// earlier returns the account that an earlier delivery of the same request created. It finds
// the account by its id, derived from the key. If no account has the id, another
// account has the email.
func (s signup) earlier(ctx context.Context, u user.User) (user.Account, error) {
	account, err := s.users.AccountByID(ctx, u.ID)
	switch {
	case errors.Is(err, user.ErrNotFound):
		return account, emailInUse()
	case err == nil && account.Email != u.Email:
		return account, mismatch()
	}
	return account, err
}

func emailInUse() error { return apierror.Field("email", "This email is in use.") }

func mismatch() error {
	return apierror.New(apierror.Mismatch, "This Idempotency-Key, or this event, was used with another request.")
}
