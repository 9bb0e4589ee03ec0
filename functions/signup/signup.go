// Package signup is the function that creates an account, and starts its first
// session where a person asks for it. It is one of the three that hold the signing
// key.
package signup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/credentials"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/receiver"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/password/policy"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/user"
)

// Endpoint is POST /api/users/signup, and the event that asks for the same.
var Endpoint = receiver.On(endpoint.LimitRequests(endpoint.Define(endpoint.Spec{
	Name:    "signup",
	Method:  http.MethodPost,
	Path:    "/api/users/signup",
	Success: http.StatusCreated,
	Summary: "Create an account and start its first session.",
}, newHandler), limit), endpoint.Trigger{
	Types:   []string{"com.ticketing.user.signup.requested.v1"},
	Reply:   "com.ticketing.user.signup.accepted.v1",
	Refusal: "com.ticketing.user.signup.refused.v1",
}, wireEvent)

// Input is an email and the password chosen for it.
type Input struct {
	endpoint.Keyed
	endpoint.Client
	Email    string `json:"email"`
	Password string `json:"password"`

	address email.Address
	policy  policy.Policy
}

// Configure gives Validate the password policy.
func (in *Input) Configure(cfg *config.Config) { in.policy = policy.FromConfig(cfg) }

// Validate implements the second half of decoding: it normalises the email and
// refuses a password that may not be chosen.
func (in *Input) Validate(bad *apierror.Fields) {
	var err error
	if in.address, err = email.Parse(in.Email); err != nil {
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
		{Name: "password", Format: "password", MinLength: policy.MinLength, MaxLength: password.MaxBytes,
			About: fmt.Sprintf("Normalised to NFC, in which it has %d to %d characters. A common password is refused, and one made of the email or the platform's name. There are no rules for digits or symbols. The operator may ask for more characters.", policy.MinLength, policy.MaxLength)},
	}
}

// Accepted is the answer to an event. A broker passes it on, so it holds no token.
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

// limit counts each request before its password meets the policy. A request that finds no
// room for its hash asks the database nothing.
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

func newHandler(cfg *config.Config) endpoint.Handler[Input, session.Grant] {
	s := signup{user.FromConfig(cfg, sender.FromConfig(cfg)), password.FromConfig(cfg), credentials.FromConfig(cfg), session.FromConfig(cfg), cfg.Now()}
	return s.create
}

func wireEvent(cfg *config.Config) endpoint.Handler[Input, Accepted] {
	s := signup{users: user.FromConfig(cfg, sender.FromConfig(cfg)), passwords: password.FromConfig(cfg)}
	return s.handleEvent
}

// create hashes before it knows whether the email is free: looking first would
// decide nothing, since another may take it in between, and would answer faster
// for an email that is in use.
//
// An Idempotency-Key that has grown old makes another id, which its retries find.
func (s signup) create(ctx context.Context, in Input) (session.Grant, error) {
	hash, err := s.passwords.Hash(ctx, in.Password)
	if err != nil {
		return session.Grant{}, err
	}
	for range keyUses {
		u := user.User{ID: session.IDFromKey(in.Key), Email: string(in.address)}
		device := credentials.NewDevice()
		first, refresh := s.open(u, device)
		err = s.users.Create(ctx, u, hash, &first)
		if err == nil {
			return s.grant(u, first, refresh, device)
		}
		if !errors.Is(err, user.ErrDuplicate) {
			return session.Grant{}, err
		}
		account, err := s.before(ctx, u)
		if !account.CreatedAt.IsZero() && s.now().Sub(account.CreatedAt) > keyLife {
			in.Key += "+"
			continue
		}
		if err != nil {
			return session.Grant{}, err
		}
		return s.again(ctx, in, account)
	}
	return session.Grant{}, mismatch()
}

// handleEvent creates an account for another service, which is trusted not to ask too
// often. There is nobody to hand a session to, so none is opened. A second delivery
// finds what the first did.
func (s signup) handleEvent(ctx context.Context, in Input) (Accepted, error) {
	hash, err := s.passwords.Hash(ctx, in.Password)
	if err != nil {
		return Accepted{}, err
	}
	u := user.User{ID: session.IDFromKey(in.Key), Email: string(in.address)}
	err = s.users.Create(ctx, u, hash, nil)
	if errors.Is(err, user.ErrDuplicate) {
		_, err = s.before(ctx, u)
	}
	return Accepted{u}, err
}

const (
	// keyLife is how long an Idempotency-Key is remembered. After that a request with
	// it is a new one.
	keyLife = 24 * time.Hour
	// keyUses is how often a key may be used for a new account. Each costs those that
	// come after it two commands.
	keyUses = 4
)

// again answers a sign-up whose key was used with this email. With the password of the
// account it is a retry: the first answer was lost, and the client gets a session. The
// password is compared with the stored hash; a digest of the request would be a second and
// weaker hash.
//
// It is a sign-in with the limits of one. Otherwise a client that knows the key could guess
// passwords here.
func (s signup) again(ctx context.Context, in Input, account user.Account) (grant session.Grant, err error) {
	err = s.credentials.Check(ctx, credentials.Claim{
		Client:   in.Client,
		Email:    account.Email,
		Password: in.Password,
		Find:     func(context.Context) (user.Account, error) { return account, nil },
	}, func(ctx context.Context, p credentials.Proof) (err error) {
		opened, refresh := s.open(account.User, p.Device)
		err = s.users.Open(ctx, account, opened, "")
		if errors.Is(err, user.ErrChanged) {
			return apierror.Busy(time.Second, err)
		}
		if err == nil {
			grant, err = s.grant(account.User, opened, refresh, p.Device)
		}
		return err
	})
	switch {
	case errors.Is(err, credentials.ErrDisabled):
		err = used()
	case errors.Is(err, credentials.ErrWrong):
		err = mismatch()
	}
	return grant, err
}

func (s signup) open(u user.User, device string) (user.Session, session.Refresh) {
	opened, refresh := session.Open(u.ID, s.now(), s.grants.TTL())
	opened.Device = credentials.Digest(device)
	return opened, refresh
}

func (s signup) grant(u user.User, opened user.Session, refresh session.Refresh, device string) (session.Grant, error) {
	grant, err := s.grants.Grant(u, opened, refresh, opened.CreatedAt)
	grant.Device = device
	return grant, err
}

// before returns the account that the same request made before. The id tells: it
// is the key's. Where nobody has the id, another account has the email.
func (s signup) before(ctx context.Context, u user.User) (user.Account, error) {
	account, err := s.users.AccountByID(ctx, u.ID)
	switch {
	case errors.Is(err, user.ErrNotFound):
		return account, used()
	case err == nil && account.Email != u.Email:
		return account, mismatch()
	}
	return account, err
}

func used() error { return apierror.Field("email", "This email is in use.") }

func mismatch() error {
	return apierror.New(apierror.Mismatch, "This Idempotency-Key, or this event, was used with another request.")
}
