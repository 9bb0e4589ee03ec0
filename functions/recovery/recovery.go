// Package recovery is the function with which the owner of an email resets a lost password.
package recovery

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/origin"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/password/policy"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/user"
)

const path = "/api/users/recovery"

// Function serves POST /api/users/recovery and its confirmation.
var Function = endpoint.Function{
	Name: "recovery",
	Needs: []endpoint.Need{
		confirmation.Confirming, password.Hashing, policy.Checking, origin.Reading,
		sender.Publishing(event.PasswordChanged, event.Verified, event.SignedOut, event.MailRequested),
		user.Storing(endpoint.Find, endpoint.Update),
		ratelimit.Counting("RATE_LIMIT_CONFIRMATION"),
	},
	Endpoints: []endpoint.Endpoint{
		endpoint.LimitRequests(endpoint.Define(endpoint.Spec{
			ID:      "recovery",
			Method:  http.MethodPost,
			Path:    path,
			Access:  endpoint.Public,
			Success: http.StatusAccepted,
			Summary: "Request the mail that resets a lost password.",
		}, newHandler, recovery.request), ratelimit.Addresses("confirmation", ratelimit.Confirmation)),
		endpoint.LimitRequests(endpoint.Define(endpoint.Spec{
			ID:      "confirmRecovery",
			Method:  http.MethodPost,
			Path:    path + "/confirm",
			Access:  endpoint.Public,
			Success: http.StatusOK,
			Summary: "Reset the password with the token or the code of the mail and end all sessions.",
		}, newHandler, recovery.confirm), ratelimit.Addresses("confirmation", ratelimit.Confirmation)),
	},
}

// Input is the email of an account, which need not exist.
type Input struct {
	Email string `json:"email"`
}

// Validate checks the form of the email.
func (in *Input) Validate(bad *apierror.Fields) {
	if _, err := email.Parse(in.Email); err != nil {
		bad.Add("email", err.Error())
	}
}

// Members implements reference.Described.
func (Input) Members() []reference.Member { return []reference.Member{email.Member("email")} }

// Confirmation is a new password, and the token of the mail or the email and the code.
type Confirmation struct {
	origin.Origin
	Token       *string `json:"token"`
	Email       *string `json:"email"`
	Code        *string `json:"code"`
	NewPassword string  `json:"newPassword"`

	policy policy.Policy
}

// Configure gives Validate the password policy.
func (in *Confirmation) Configure(cfg *config.Config) { in.policy = policy.FromConfig(cfg) }

// Validate requires a token, or an email with a code, and applies the password policy. The policy
// compares the password with the email only if the client sends that: see recovery.reset for the other
// case.
func (in *Confirmation) Validate(bad *apierror.Fields) {
	address := ""
	switch {
	case in.Token != nil && in.Email == nil && in.Code == nil:
	case in.Token == nil && in.Email != nil && in.Code != nil:
		address = *in.Email
		if _, err := email.Parse(address); err != nil {
			bad.Add("email", err.Error())
		}
	default:
		bad.Add("token", "Send either a token, or an email and a code.")
	}
	if err := in.policy.Check(in.NewPassword, address); err != nil {
		bad.Add("newPassword", err.Error())
	}
}

// Members implements reference.Described.
func (Confirmation) Members() []reference.Member {
	return []reference.Member{
		confirmation.TokenMember,
		email.Member("email"),
		{Name: "code", About: "The six digits of the mail. At most five codes an hour are compared for an email."},
		policy.Member("newPassword"),
	}
}

// Output confirms the request.
type Output struct {
	Message string `json:"message"`
}

type recovery struct {
	users     *user.Store
	passwords *password.Hasher
	limiter   *ratelimit.Limiter
	keys      *confirmation.Keys
	policy    policy.Policy
	now       func() time.Time
	log       *slog.Logger
}

func newHandler(cfg *config.Config) recovery {
	return recovery{user.FromConfig(cfg, sender.FromConfig(cfg)), password.FromConfig(cfg), ratelimit.FromConfig(cfg), confirmation.FromConfig(cfg),
		policy.FromConfig(cfg), cfg.Now(), cfg.Log()}
}

const (
	// requestTimeout bounds the work of a request after its response.
	requestTimeout = 4 * time.Second
	// maxDelay bounds the random delay of the work, and slotTime is the time for which it occupies a slot.
	maxDelay, slotTime = time.Second, 2 * time.Second
	// frozenTime is the time of a response where all work must precede it. The work has frozenWork, for a
	// read, a write and the delivery of the event. The rest is for the end of an interrupted delivery. So
	// the time does not depend on the account.
	frozenTime, frozenWork = 2 * time.Second, time.Second
)

// request does its work after the response. So the response and its time are the same for every email,
// whether an account has it or not (OWASP ASVS 5.0.0 requirement 6.3.8).
func (r recovery) request(ctx context.Context, in Input) (Output, error) {
	if !r.users.Mails() {
		return Output{}, confirmation.Limited(user.ErrNoMails)
	}
	address, _ := email.Parse(in.Email) // Validate has accepted it
	accepted := Output{"If an account has this email, a mail is on its way."}
	work := func(ctx context.Context, timeout time.Duration) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		err := r.users.RequestRecovery(ctx, string(address), r.now())
		_, limited := errors.AsType[user.TooManyMails](err)
		if err != nil && !limited && !errors.Is(err, user.ErrNotFound) {
			r.log.ErrorContext(ctx, "a recovery was not requested", "error", err)
		}
	}
	if later := endpoint.LaterFrom(ctx); later != nil {
		if !later.Run(ctx, func(ctx context.Context) {
			// Other requests can observe the load of the work and the number of free slots. So the work
			// begins at a random moment, and the slot is occupied for the same time for every email.
			end := time.After(slotTime)
			time.Sleep(rand.N(maxDelay))
			work(ctx, requestTimeout)
			<-end
		}) {
			return Output{}, apierror.Busy(time.Second, errors.New("too many recoveries are in flight"))
		}
		return accepted, nil
	}
	end := time.After(frozenTime)
	work(ctx, frozenWork)
	<-end
	return accepted, nil
}

func (r recovery) confirm(ctx context.Context, in Confirmation) (Output, error) {
	if in.Code != nil {
		if err := r.limiter.AllowCode(ctx, string(event.Recovery), in.address()); err != nil {
			return Output{}, err
		}
	}
	err := r.reset(ctx, in)
	if errors.Is(err, user.ErrChanged) { // a concurrent request was first, perhaps with another password
		err = r.reset(ctx, in)
	}
	if errors.Is(err, user.ErrNotPending) {
		err = confirmation.Invalid(map[bool]string{true: "code", false: "token"}[in.Code != nil])
	}
	return Output{"The password is changed. Sign in with it."}, err
}

// address returns the email in its normal form. Validate has accepted it.
func (in *Confirmation) address() string {
	address, _ := email.Parse(*in.Email)
	return string(address)
}

func (r recovery) claim(ctx context.Context, in Confirmation) (user.Claim, error) {
	if in.Code == nil {
		return r.keys.Claim(ctx, r.users, event.Recovery, *in.Token, r.now())
	}
	return r.users.ClaimByEmail(ctx, in.address(), event.Recovery, func(id string) user.Proof { return r.keys.ByCode(id, event.Recovery, *in.Code) }, r.now())
}

// reset replaces the password. A repeated request must have the password of the first one: it changes
// nothing. If a concurrent request was first, reset returns user.ErrChanged.
func (r recovery) reset(ctx context.Context, in Confirmation) error {
	claim, err := r.claim(ctx, in)
	if err != nil {
		return err
	}
	if err := r.policy.Check(in.NewPassword, claim.Account.Email); err != nil {
		return apierror.Field("newPassword", err.Error())
	}
	if claim.Done && claim.Account.Password == user.LockedPassword { // by an undo, after the confirmation
		return user.ErrNotPending
	}
	if claim.Done {
		same, _, err := r.passwords.Verify(ctx, claim.Account.Password, in.NewPassword)
		if err == nil && !same {
			err = user.ErrNotPending
		}
		return err
	}
	hash, err := r.passwords.Hash(ctx, in.NewPassword)
	if err != nil {
		return err
	}
	if err := r.users.ConfirmRecovery(ctx, claim, hash, in.From, r.now()); err != nil {
		return err
	}
	r.limiter.Forget(ctx, claim.Account.Email)
	return nil
}
