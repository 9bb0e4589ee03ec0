// Package export is the function that returns everything that the system stores about a user, except
// hashes and secrets (GDPR article 20).
package export

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/user"
)

// Function serves GET /api/users/export.
var Function = endpoint.Function{
	Name:  "export",
	Needs: []endpoint.Need{accesstoken.Verifying, user.Storing(endpoint.Find)},
	Endpoints: []endpoint.Endpoint{endpoint.Define(endpoint.Spec{
		Method:  http.MethodGet,
		Path:    "/api/users/export",
		Access:  endpoint.Required,
		Success: http.StatusOK,
		Summary: "Download everything that is stored about the user, except hashes and secrets.",
	}, newHandler, exporter.handle)},
}

// Input is the identity of the user.
type Input struct{ identity.Required }

// A document is the content of the file. It has every member of the stored document but the password,
// the digests and the nonces. Events are those that no other system has received yet.
type document struct {
	Account struct {
		user.User
		VerifiedAt time.Time `json:"verifiedAt,omitzero"`
		CreatedAt  time.Time `json:"createdAt,omitzero"`
		Language   string    `json:"language,omitzero"`
		Roles      []string  `json:"roles"`
		Opened     int       `json:"sessionsOpened"`
	} `json:"account"`
	Sessions []session                     `json:"sessions"`
	Devices  []time.Time                   `json:"deviceSignIns"` // the last sign-in of each known device
	History  []user.Entry                  `json:"history"`
	Pending  []pending                     `json:"pending"`
	Undo     []pending                     `json:"earlierEmails"`
	Mails    map[event.Purpose][]time.Time `json:"mails"` // the mails of the last day
	Ended    map[string]time.Time          `json:"endedSessions"`
	Events   []storedEvent                 `json:"undeliveredEvents"`
}

type session struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"createdAt"`
	SeenAt    time.Time `json:"seenAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	user.Origin
}

type pending struct {
	Purpose   event.Purpose `json:"purpose"`
	Email     string        `json:"email"`
	ExpiresAt time.Time     `json:"expiresAt"`
}

type storedEvent struct {
	Type string    `json:"type"`
	Time time.Time `json:"time"`
}

type exporter struct {
	users *user.Store
	now   func() time.Time
}

func newHandler(cfg *config.Config) exporter { return exporter{user.FromConfig(cfg, nil), cfg.Now()} }

func (e exporter) handle(ctx context.Context, in Input) (endpoint.File, error) {
	a, err := e.users.SignedIn(ctx, in.Identity.Subject, in.Identity.Session, e.now())
	if errors.Is(err, user.ErrSessionEnded) {
		return endpoint.File{}, apierror.InvalidToken(err)
	}
	if err != nil {
		return endpoint.File{}, err
	}
	content, err := json.Marshal(describe(a), json.Deterministic(true), jsontext.WithIndent("  "))
	return endpoint.File{Name: "account.json", Type: "application/json", Content: content}, err
}

func describe(a user.Account) document {
	d := document{History: a.Entries(), Ended: a.Ended, Mails: a.Mailed, Sessions: []session{}, Pending: []pending{}, Undo: []pending{}, Events: []storedEvent{}}
	d.Account.User, d.Account.CreatedAt, d.Account.Language, d.Account.Opened = a.User, a.CreatedAt, a.Language, a.Opened
	d.Account.Roles = append([]string{}, a.Roles...)
	if a.VerifiedAt != nil {
		d.Account.VerifiedAt = *a.VerifiedAt
	}
	for _, id := range slices.Sorted(maps.Keys(a.Sessions)) {
		s := a.Sessions[id]
		d.Sessions = append(d.Sessions, session{id, s.CreatedAt, s.RotatedAt, s.ExpiresAt, s.Origin})
	}
	d.Devices = slices.SortedFunc(maps.Values(a.Devices), time.Time.Compare)
	for _, purpose := range slices.Sorted(maps.Keys(a.Pending)) {
		d.Pending = append(d.Pending, pending{purpose, a.Pending[purpose].Email, a.Pending[purpose].ExpiresAt})
	}
	for _, u := range slices.SortedFunc(maps.Values(a.Undo), func(x, y user.Undo) int { return x.At.Compare(y.At) }) {
		d.Undo = append(d.Undo, pending{event.EmailUndo, u.Email, u.ExpiresAt})
	}
	for _, id := range slices.Sorted(maps.Keys(a.Events)) {
		d.Events = append(d.Events, storedEvent{a.Events[id].Type, a.Events[id].Time})
	}
	return d
}
