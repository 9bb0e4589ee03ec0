package confirmation

import (
	"context"
	"errors"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/user"
)

// Confirming is the need of a function that computes or checks tokens and codes.
var Confirming = endpoint.Need{Secret: &endpoint.Secret{Setting: "MAIL_KEYS", Name: "mail-keys", Key: "keys", Optional: true,
	Sample: func() string { return "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }}}

// FromConfig returns the keys of MAIL_KEYS, or nil without keys.
func FromConfig(cfg *config.Config) *Keys {
	return config.Part(cfg, "mail keys", func() *Keys {
		name, text := cfg.Document("MAIL_KEYS")
		if text == nil {
			return nil
		}
		keys, err := ParseKeys(string(text))
		if err != nil {
			cfg.Problem(name, "is not a list of keys: "+err.Error())
			return nil
		}
		return keys
	})
}

// Invalid returns the error for a client whose token or code is wrong, expired or used.
func Invalid(field string) error {
	return apierror.Field(field, "This "+field+" is wrong, expired or used. Request a new mail.")
}

// Claim returns the claim of a client that presents a token, or user.ErrNotPending.
func (k *Keys) Claim(ctx context.Context, users *user.Store, purpose event.Purpose, presented string, now time.Time) (user.Claim, error) {
	t, err := Parse(presented)
	if err != nil || t.Purpose != purpose {
		return user.Claim{}, user.ErrNotPending
	}
	return users.Claim(ctx, t.User, purpose, k.ByToken(t), now)
}

// claimByCode returns the claim of a signed-in client that presents a code, or user.ErrNotPending. The
// session names the account, so only the user can use up its codes. Without a valid session, or at the
// limit of codes, claimByCode returns an API error.
func (k *Keys) claimByCode(ctx context.Context, users *user.Store, limiter *ratelimit.Limiter, signedIn *token.Claims, purpose event.Purpose, presented string, now time.Time) (user.Claim, error) {
	if signedIn == nil {
		return user.Claim{}, apierror.NoToken()
	}
	id := signedIn.Subject
	account, err := users.SignedIn(ctx, id, signedIn.Session, now)
	if err != nil {
		if errors.Is(err, user.ErrSessionEnded) {
			err = apierror.InvalidToken(err)
		}
		return user.Claim{}, err
	}
	// also per recipient: with many accounts, an attacker could guess the code of one mailbox
	subjects := []string{id}
	if p, pending := account.Pending[purpose]; pending {
		subjects = append(subjects, p.Email)
	}
	for _, subject := range subjects {
		if err := limiter.AllowCode(ctx, string(purpose), subject); err != nil {
			return user.Claim{}, err
		}
	}
	return users.Claim(ctx, id, purpose, k.ByCode(id, purpose, presented), now)
}

// Limited returns the error for a client that has requested too many mails, or any mail of a system that
// sends none. It returns other errors unchanged.
func Limited(err error) error {
	mails, limited := errors.AsType[user.TooManyMails](err)
	switch {
	case limited:
		return apierror.Limited("mail", mails.Quota, mails.Window, mails.Wait)
	case errors.Is(err, user.ErrNoMails):
		return apierror.Retry(apierror.Unavailable, time.Hour, "This system sends no mails.", err)
	case errors.Is(err, user.ErrTooManyChanges):
		return apierror.Limited("emailchange", user.UndoLimit, user.UndoTTL, 24*time.Hour)
	}
	return err
}

// CodeMember describes the member code of an input of a signed-in user.
var CodeMember = reference.Member{Name: "code", About: "The six digits of the mail. A code needs the bearer token of the user. At most five codes an hour are compared for an account."}

// TokenMember describes the member token of an input.
var TokenMember = reference.Member{Name: "token", Opaque: true, About: "The token in the link of the mail, after the character #. It is valid once; the same request within 10 seconds gets the same answer."}
