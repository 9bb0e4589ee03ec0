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

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/cloudevents"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/fault"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/password/policy"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/sink"
	"ticketing.com/auth/shared/throttle"
	"ticketing.com/auth/shared/user"
)

// Endpoint is POST /api/users/signup, and the event that asks for the same.
var Endpoint = cloudevents.On(endpoint.Define(endpoint.Spec{
	Name:    "signup",
	Method:  http.MethodPost,
	Path:    "/api/users/signup",
	Success: http.StatusCreated,
	Summary: "Create an account and start its first session.",
}, wire), endpoint.Trigger{
	Types:   []string{"com.ticketing.user.signup.requested.v1"},
	Reply:   "com.ticketing.user.signup.accepted.v1",
	Refusal: "com.ticketing.user.signup.refused.v1",
}, wireEvent)

// Input is an email and the password chosen for it.
type Input struct {
	endpoint.Keyed
	endpoint.Caller
	Email    string `json:"email"`
	Password string `json:"password"`

	address email.Address
	policy  policy.Policy
}

// Wire gives Validate the password policy.
func (in *Input) Wire(w *app.Wiring) { in.policy = policy.Wire(w) }

// Validate implements the second half of decoding: it normalises the email and
// refuses a password that may not be chosen.
func (in *Input) Validate(bad *fault.Fields) {
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
	users     *user.Store
	passwords *password.Hasher
	grants    *session.Granter
	throttle  *throttle.Throttle
	now       func() time.Time
}

func wire(w *app.Wiring) endpoint.Handler[Input, session.Grant] {
	s := signup{user.Wire(w, sink.Wire(w)), password.Wire(w), session.Wire(w), throttle.Wire(w), w.Now()}
	return s.handle
}

func wireEvent(w *app.Wiring) endpoint.Handler[Input, Accepted] {
	s := signup{users: user.Wire(w, sink.Wire(w)), passwords: password.Wire(w)}
	return s.handleEvent
}

func (s signup) handle(ctx context.Context, in Input) (session.Grant, error) {
	if err := s.passwords.Room(); err != nil {
		return session.Grant{}, err
	}
	if err := s.throttle.Admit(ctx, throttle.Signup, in.Caller); err != nil {
		return session.Grant{}, err
	}
	return s.create(ctx, in)
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
		u := user.User{ID: session.IDOf(in.Key), Email: string(in.address)}
		first, refresh := s.open(u, in)
		err = s.users.Create(ctx, u, hash, &first)
		if err == nil {
			return s.grants.Grant(u, first, refresh, first.CreatedAt)
		}
		if !errors.Is(err, user.ErrUsed) {
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
	u := user.User{ID: session.IDOf(in.Key), Email: string(in.address)}
	err = s.users.Create(ctx, u, hash, nil)
	if errors.Is(err, user.ErrUsed) {
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
// account it is a retry: the first answer was lost, and the caller gets a session. The
// password is compared with what is stored of it; a digest of the request would be a
// second and weaker hash.
//
// So it is a sign-in, and counts as one: or whoever knows the key could guess here
// without end, and sign in to an account that takes no password now.
func (s signup) again(ctx context.Context, in Input, account user.Account) (session.Grant, error) {
	try := s.throttle.Begin(ctx, in.Caller, account.Email)
	defer try.End()
	if err := try.Admitted(); err != nil {
		return session.Grant{}, err
	}
	counted := try.Count(account.Knows(try.Device(account.ID), s.now()))
	right, _, err := s.passwords.Verify(ctx, account.Password, in.Password)
	if err != nil {
		return session.Grant{}, err
	}
	early := counted()
	if early != nil && !errors.Is(early, throttle.ErrEarly) {
		return session.Grant{}, early
	}
	switch {
	case early != nil: // not Mismatch, which is for another request, and this one may be the same
		try.Wrong()
		return session.Grant{}, throttle.Wait()
	case !right:
		try.Wrong()
		return session.Grant{}, mismatch()
	}
	try.Right()
	if account.DisabledAt != nil {
		return session.Grant{}, used()
	}
	opened, refresh := s.open(account.User, in)
	err = s.users.Open(ctx, account, opened, "")
	if errors.Is(err, user.ErrChanged) {
		return session.Grant{}, fault.Busy(time.Second, err)
	}
	if err != nil {
		return session.Grant{}, err
	}
	return s.grants.Grant(account.User, opened, refresh, opened.CreatedAt)
}

func (s signup) open(u user.User, in Input) (user.Session, session.Refresh) {
	opened, refresh := session.Open(u.ID, s.now(), s.grants.Life())
	opened.Device = s.throttle.Device(in.Caller, u.ID)
	return opened, refresh
}

// before returns the account that the same request made before. The id tells: it
// is the key's. Where nobody has the id, another account has the email.
func (s signup) before(ctx context.Context, u user.User) (user.Account, error) {
	account, err := s.users.AccountByID(ctx, u.ID)
	switch {
	case errors.Is(err, user.ErrUnknown):
		return account, used()
	case err == nil && account.Email != u.Email:
		return account, mismatch()
	}
	return account, err
}

func used() error { return fault.Field("email", "This email is in use.") }

func mismatch() error {
	return fault.New(fault.Mismatch, "This Idempotency-Key, or this event, was used with another request.")
}
