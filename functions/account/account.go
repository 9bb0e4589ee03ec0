// Package account is the function with which a user reads, deletes and restores the account.
package account

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/credentials"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/origin"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/user"
)

const path = "/api/users/account"

// Function serves GET /api/users/account, and the deletion and the restoration of the account.
var Function = endpoint.Function{
	Name: "account",
	Needs: []endpoint.Need{
		accesstoken.Verifying, password.Hashing, origin.Reading,
		{Settings: []string{"DELETE_GRACE"}},
		sender.Publishing(event.DeletionRequested, event.UserDeleted, event.SignedOut, event.MailRequested),
		user.Storing(endpoint.Find, endpoint.Update),
		ratelimit.Counting("RATE_LIMIT_SIGNIN"),
	},
	Endpoints: []endpoint.Endpoint{
		endpoint.Define(endpoint.Spec{
			ID:      "account",
			Method:  http.MethodGet,
			Path:    path,
			Access:  endpoint.Required,
			Success: http.StatusOK,
			Summary: "Return the account of the user.",
		}, newHandler, accounts.show),
		endpoint.LimitInvalid(endpoint.Define(endpoint.Spec{
			ID:      "deleteAccount",
			Method:  http.MethodPost,
			Path:    path + "/deletion",
			Access:  endpoint.Required,
			Success: http.StatusAccepted,
			Summary: "End all sessions and delete the account after the grace period.",
		}, newHandler, accounts.delete), ratelimit.Addresses("signin", ratelimit.Signin)),
		endpoint.LimitInvalid(endpoint.Define(endpoint.Spec{
			ID:      "restoreAccount",
			Method:  http.MethodPost,
			Path:    path + "/restore",
			Access:  endpoint.Public,
			Success: http.StatusOK,
			Summary: "Cancel the deletion of an account within the grace period.",
			Refuses: []apierror.Kind{apierror.Unauthenticated},
		}, newHandler, accounts.restore), ratelimit.Addresses("signin", ratelimit.Signin)),
	},
}

// Input is the identity of the user.
type Input struct{ identity.Required }

// Output is the account of the user.
type Output struct {
	Account Account `json:"account"`
}

// Account is an account as its owner sees it.
type Account struct {
	ID            string    `json:"id"`
	Email         string    `json:"email"`
	EmailVerified bool      `json:"emailVerified"`
	CreatedAt     time.Time `json:"createdAt,omitzero"`
	Roles         []string  `json:"roles"`
	Factors       []string  `json:"factors"`
}

// Members implements reference.Described.
func (Account) Members() []reference.Member {
	return []reference.Member{
		{Name: "id", Opaque: true},
		{Name: "email", Format: "email"},
		{Name: "emailVerified", About: "Whether the user has proved control of the email."},
		{Name: "createdAt", About: "Absent for an imported account without that time."},
		{Name: "factors", About: "The second factors of the account."},
	}
}

// Deletion is the current password.
type Deletion struct {
	identity.Required
	endpoint.Client
	origin.Origin
	CurrentPassword string `json:"currentPassword"`
}

// Validate checks the length of the password.
func (in *Deletion) Validate(bad *apierror.Fields) {
	if password.IsTooLong(in.CurrentPassword) {
		bad.Add("currentPassword", password.TooLong)
	}
}

// Members implements reference.Described.
func (Deletion) Members() []reference.Member {
	return []reference.Member{credentials.CurrentMember}
}

// Deleted is the time of the deletion.
type Deleted struct {
	DeletesAt time.Time `json:"deletesAt"`
}

// Members implements reference.Described.
func (Deleted) Members() []reference.Member {
	return []reference.Member{{Name: "deletesAt", About: "Until then the user can restore the account."}}
}

// Restoration is the email and the password of the account.
type Restoration struct {
	endpoint.Client
	origin.Origin
	Email    string `json:"email"`
	Password string `json:"password"`
}

// Validate checks the email and the length of the password.
func (in *Restoration) Validate(bad *apierror.Fields) {
	if _, err := email.Parse(in.Email); err != nil {
		bad.Add("email", err.Error())
	}
	if password.IsTooLong(in.Password) {
		bad.Add("password", password.TooLong)
	}
}

// Members implements reference.Described.
func (Restoration) Members() []reference.Member {
	return []reference.Member{email.Member("email"), {Name: "password", Format: "password", MaxLength: password.MaxBytes}}
}

// Restored confirms the restoration.
type Restored struct {
	Message string `json:"message"`
}

type accounts struct {
	users       *user.Store
	credentials *credentials.Checker
	grace       time.Duration
	now         func() time.Time
	log         *slog.Logger
}

func newHandler(cfg *config.Config) accounts {
	return accounts{user.FromConfig(cfg, sender.FromConfig(cfg)), credentials.FromConfig(cfg),
		cfg.Duration("DELETE_GRACE", 720*time.Hour, 0, 365*24*time.Hour), cfg.Now(), cfg.Log()}
}

func (s accounts) show(ctx context.Context, in Input) (Output, error) {
	a, err := s.users.SignedIn(ctx, in.Identity.Subject, in.Identity.Session, s.now())
	if errors.Is(err, user.ErrSessionEnded) {
		return Output{}, apierror.InvalidToken(err)
	}
	return Output{Account{ID: a.ID, Email: a.Email, EmailVerified: a.VerifiedAt != nil, CreatedAt: a.CreatedAt, Roles: append([]string{}, a.Roles...), Factors: []string{}}}, err
}

// delete erases the account at once if there is no grace period. If that fails, the relay erases it.
func (s accounts) delete(ctx context.Context, in Deletion) (out Deleted, err error) {
	err = s.credentials.Current(ctx, s.users, in.Identity, in.Client, in.CurrentPassword, func(ctx context.Context, a user.Account) (err error) {
		out.DeletesAt, err = s.users.RequestDeletion(ctx, a, in.Identity.Session, s.grace, in.From, s.now())
		return err
	})
	if err == nil && s.grace == 0 {
		if err := s.users.Erase(ctx, in.Identity.Subject, s.now()); err != nil {
			s.log.WarnContext(ctx, "an account was left to the relay to erase", "error", err)
		}
	}
	return out, err
}

// restore answers as a sign-in does. After the grace period, the account does not exist for the client.
func (s accounts) restore(ctx context.Context, in Restoration) (Restored, error) {
	address, _ := email.Parse(in.Email) // Validate has accepted it
	err := s.credentials.Check(ctx, credentials.Claim{
		Client:   in.Client,
		Email:    string(address),
		Password: in.Password,
		Find:     func(ctx context.Context) (user.Account, error) { return s.users.Account(ctx, string(address)) },
	}, func(ctx context.Context, p credentials.Proof) error {
		if p.Account.Deletes(s.now()) {
			return credentials.ErrWrong
		}
		return s.users.Restore(ctx, p.Account, in.From, s.now())
	})
	if errors.Is(err, credentials.ErrWrong) || errors.Is(err, user.ErrUnreadable) || errors.Is(err, user.ErrNotFound) || errors.Is(err, user.ErrNotDeleting) {
		err = apierror.Credentials(nil)
	}
	return Restored{"The account is restored. Sign in."}, err
}
