// Package credentials checks the password of an account, for all functions that accept one.
package credentials

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/user"
)

// A Checker checks passwords. It is safe for concurrent use.
type Checker struct {
	passwords *password.Hasher
	limiter   *ratelimit.Limiter
	limit     ratelimit.Limit
	now       func() time.Time
	log       *slog.Logger
	telemetry *telemetry.Telemetry
}

// FromConfig returns the checker of RATE_LIMIT_SIGNIN and of the settings of
// password.FromConfig and ratelimit.FromConfig.
func FromConfig(cfg *config.Config) *Checker {
	return &Checker{password.FromConfig(cfg), ratelimit.FromConfig(cfg), ratelimit.Signin(cfg), cfg.Now(), cfg.Log(), telemetry.FromConfig(cfg)}
}

// A Claim is an email and a password that a client presents.
type Claim struct {
	Client   endpoint.Client
	Email    string
	Password string
	// Find returns the account of the email. If its error is user.ErrNotFound or
	// user.ErrUnreadable, the check fails as for a wrong password, after the same work.
	Find func(context.Context) (user.Account, error)
	// Rehash requests a new hash if the stored one is stale.
	Rehash bool
}

// A Proof is the account of a claim with the right password.
type Proof struct {
	Account user.Account
	Rehash  string // the hash to store, or empty
	Device  string // the device token to store and to return to the client
}

var (
	// ErrWrong means that the password is wrong, or that the account is unknown, disabled or
	// unreadable.
	ErrWrong = errors.New("the credentials are wrong")
	// ErrDisabled means that the password is right and the account disabled. It wraps ErrWrong.
	ErrDisabled = fmt.Errorf("%w: the account is disabled", ErrWrong)
)

// maxChecks bounds the repetitions of a check during which the stored hash changed.
const maxChecks = 3

// Check calls open if the password is right, and returns the error of open. If open returns
// user.ErrChanged, Check starts again, with another attempt. For wrong credentials, Check returns an error that wraps
// ErrWrong. If it did not check the password, it returns an API error of kind TooMany or
// Unavailable.
//
// Check reserves an attempt in the rate limits while it reads the account, before the hash. It
// settles the attempt while open runs. An unknown email, a wrong password and a disabled
// account cost the same commands and one hash each, so their times do not differ.
func (c *Checker) Check(ctx context.Context, claim Claim, open func(context.Context, Proof) error) error {
	err := c.repeat(ctx, claim, open)
	outcome := "failed"
	switch kind := apierror.From(err).Kind(); {
	case err == nil:
		outcome = "succeeded"
	case errors.Is(err, ErrWrong), errors.Is(err, user.ErrUnreadable):
		telemetry.Note(ctx, telemetry.SignInFailed)
	case kind == apierror.TooMany:
		outcome = "refused"
		telemetry.Note(ctx, telemetry.SignInRefused)
	case kind == apierror.Unavailable || kind == apierror.Internal:
		outcome = "unavailable"
	}
	c.telemetry.Count(ctx, telemetry.PasswordChecks, outcome)
	return err
}

// repeat does the work of Check.
func (c *Checker) repeat(ctx context.Context, claim Claim, open func(context.Context, Proof) error) error {
	if err := c.passwords.Available(); err != nil {
		return err
	}
	claim.Client.Device = wellFormed(claim.Client.Device)
	for range maxChecks {
		if err := c.check(ctx, claim, open); !errors.Is(err, user.ErrChanged) {
			return err
		}
	}
	return apierror.Busy(time.Second, user.ErrChanged)
}

func (c *Checker) check(ctx context.Context, claim Claim, open func(context.Context, Proof) error) error {
	attempt, err := c.limiter.Begin(ctx, c.limit, claim.Client, claim.Email)
	if err != nil {
		return err
	}
	defer attempt.Close(ctx)
	proof, err := c.verify(ctx, claim, attempt)
	if err != nil {
		return err
	}
	attempt.Succeed(ctx)
	return open(ctx, proof)
}

func (c *Checker) verify(ctx context.Context, claim Claim, attempt *ratelimit.Attempt) (Proof, error) {
	account, err := claim.Find(ctx)
	unknown := errors.Is(err, user.ErrNotFound) || errors.Is(err, user.ErrUnreadable)
	if err != nil && !unknown {
		return Proof{}, err
	}
	telemetry.NoteUser(ctx, account.ID)
	unknown = unknown || account.Password == user.LockedPassword
	known := claim.Client.Device != "" && account.HasDevice(Digest(claim.Client.Device), c.now())
	if err := attempt.Allow(ctx, known); err != nil {
		return Proof{}, err
	}
	right, stale, err := c.compare(ctx, account, unknown, claim.Password)
	cause := ErrWrong
	if _, is := errors.AsType[*password.Unverifiable](err); is {
		c.log.ErrorContext(ctx, "a stored password hash cannot be verified", "user", account.ID, "error", err)
		cause, err = fmt.Errorf("%w: user %s: %w", ErrWrong, account.ID, err), nil
	}
	if over, is := errors.AsType[*password.OverMemory](err); is {
		c.log.ErrorContext(ctx, "a stored password hash needs more memory than there is", "user", account.ID, "error", over)
	}
	if err != nil {
		return Proof{}, err
	}
	if right && account.DisabledAt != nil {
		right, cause = false, ErrDisabled
	}
	if !right {
		attempt.Fail(ctx)
		return Proof{}, cause
	}
	proof := Proof{Account: account, Device: Device(claim.Client.Device)}
	if stale && claim.Rehash {
		proof.Rehash, _ = c.passwords.Hash(ctx, claim.Password) // without a free slot, a later sign-in replaces it
	}
	return proof, nil
}

// compare does the work of one hash, with an account or without one.
func (c *Checker) compare(ctx context.Context, account user.Account, unknown bool, plain string) (right, stale bool, err error) {
	if unknown {
		return false, false, c.passwords.Decoy(ctx, plain)
	}
	return c.passwords.Verify(ctx, account.Password, plain)
}

// CurrentMember describes the member of an input that Current checks.
var CurrentMember = reference.Member{Name: "currentPassword", Format: "password", MaxLength: password.MaxBytes,
	About: "Each request counts as a sign-in for the rate limit of the account."}

// Current checks the current password of a signed-in user, as Check does, and calls change with the
// account. A wrong password counts as a failed sign-in. It is an error of the field currentPassword.
func (c *Checker) Current(ctx context.Context, users *user.Store, signedIn token.Claims, client endpoint.Client, plain string, change func(context.Context, user.Account) error) error {
	find := func(ctx context.Context) (user.Account, error) {
		return users.SignedIn(ctx, signedIn.Subject, signedIn.Session, c.now())
	}
	a, err := find(ctx)
	if err == nil {
		err = c.Check(ctx, Claim{Client: client, Email: a.Email, Password: plain, Find: find}, func(ctx context.Context, p Proof) error {
			return change(ctx, p.Account)
		})
	}
	switch {
	case errors.Is(err, user.ErrSessionEnded):
		return apierror.InvalidToken(err)
	case errors.Is(err, ErrWrong):
		return apierror.Field("currentPassword", "This is not the current password.")
	}
	return err
}

// Device returns the device token of a client that has proven its account: the presented token if
// that is well-formed, otherwise a new one. Accounts that share a browser share its cookie, so each
// of them must know the same token.
//
// If an attacker plants a token in a client, the attacker gains only the counter of that client: a
// few more guesses, and the ability to delay that client.
func Device(presented string) string {
	if device := wellFormed(presented); device != "" {
		return device
	}
	return NewDevice()
}

// NewDevice returns a new device token. A client receives one with its first successful
// sign-in. The token proves only an earlier sign-in to an account, and gives its client a
// separate rate limit there. It has 128 random bits, so the account stores a digest without a
// salt.
func NewDevice() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}

// Digest returns the form of a device token that the account stores.
func Digest(device string) string {
	sum := sha256.Sum256([]byte(device))
	return hex.EncodeToString(sum[:16])
}

// wellFormed returns its argument if that has the format of a device token, otherwise "".
func wellFormed(device string) string {
	if b, err := base64.RawURLEncoding.Strict().DecodeString(device); err == nil && len(b) == 16 && len(device) == 22 {
		return device
	}
	return ""
}
