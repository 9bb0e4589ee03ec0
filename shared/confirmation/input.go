package confirmation

import (
	"context"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/origin"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/user"
)

// Input is the input of a confirmation: the token of the mail, or its code and the identity of the user. A
// code has few digits, so the session must name the account.
type Input struct {
	identity.Optional
	origin.Origin
	Token *string `json:"token"`
	Code  *string `json:"code"`
}

// Validate requires either the token or the code.
func (in *Input) Validate(bad *apierror.Fields) {
	if (in.Token == nil) == (in.Code == nil) {
		bad.Add("token", "Send either a token or a code.")
	}
}

// Field returns the name of the member that the client has sent.
func (in *Input) Field() string {
	if in.Code != nil {
		return "code"
	}
	return "token"
}

// Members implements reference.Described.
func (Input) Members() []reference.Member { return []reference.Member{TokenMember, CodeMember} }

// ClaimInput returns the claim of an input, with the errors of Claim and, for a code, the API errors of its limit and its session.
func (k *Keys) ClaimInput(ctx context.Context, users *user.Store, limiter *ratelimit.Limiter, purpose event.Purpose, in Input, now time.Time) (user.Claim, error) {
	if in.Code == nil {
		return k.Claim(ctx, users, purpose, *in.Token, now)
	}
	return k.claimByCode(ctx, users, limiter, in.Identity, purpose, *in.Code, now)
}
