// Package export is the function that returns everything that the system stores about a user, except
// hashes and secrets (GDPR article 20).
package export

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/outbox"
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
// the digests, the nonces and the counters of the store. The test of the package lists the members that
// it omits. Its events are those that no other system has received yet.
type document struct {
	Account struct {
		user.User
		VerifiedAt time.Time `json:"verifiedAt,omitzero"`
		CreatedAt  time.Time `json:"createdAt,omitzero"`
		Language   string    `json:"language,omitzero"`
		Roles      []string  `json:"roles"`
		Opened     int       `json:"sessionsOpened"`
	} `json:"account"`
	Sessions  []session                     `json:"sessions"`
	Devices   []time.Time                   `json:"deviceSignIns"` // the last sign-in of each known device
	History   []user.Entry                  `json:"history"`
	Pending   []pending                     `json:"pending"`
	Confirmed []pending                     `json:"confirmed"`
	Undo      []pending                     `json:"earlierEmails"`
	Mails     map[event.Purpose][]time.Time `json:"mails"` // the mails of the last day
	Ended     struct {
		Sessions map[string]time.Time `json:"sessions"`
		Before   time.Time            `json:"before,omitzero"`
		At       time.Time            `json:"at,omitzero"`
	} `json:"ended"`
	Requests []request     `json:"requestsOfServices"`
	Events   []storedEvent `json:"undeliveredEvents"`
}

type session struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"createdAt"`
	SeenAt    time.Time `json:"seenAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	user.Origin
}

type pending struct {
	Purpose    event.Purpose `json:"purpose"`
	Email      string        `json:"email"`
	ExpiresAt  time.Time     `json:"expiresAt"`
	At         time.Time     `json:"at,omitzero"` // of the confirmation or of the change
	VerifiedAt *time.Time    `json:"verifiedAt,omitzero"`
}

type request struct {
	At    time.Time `json:"at"`
	Ended int       `json:"ended"`
}

type storedEvent struct {
	Type string         `json:"type"`
	Time time.Time      `json:"time"`
	Data jsontext.Value `json:"data"`
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
	d, err := describe(a)
	if err != nil {
		return endpoint.File{}, err
	}
	content, err := json.Marshal(d, json.Deterministic(true), jsontext.WithIndent("  "))
	return endpoint.File{Name: "account.json", Type: "application/json", Content: content}, err
}

func describe(a user.Account) (d document, err error) {
	d = document{History: a.Entries(), Mails: a.Mailed, Sessions: []session{}, Pending: []pending{}, Confirmed: []pending{}, Undo: []pending{}, Requests: []request{}, Events: []storedEvent{}}
	d.Account.User, d.Account.CreatedAt, d.Account.Language, d.Account.Opened = a.User, a.CreatedAt, a.Language, a.Opened
	d.Account.Roles = append([]string{}, a.Roles...)
	if a.VerifiedAt != nil {
		d.Account.VerifiedAt = *a.VerifiedAt
	}
	d.Ended.Sessions, d.Ended.Before, d.Ended.At = a.Ended, a.EndedBefore, a.EndedAt
	for id, s := range sorted(a.Sessions) {
		d.Sessions = append(d.Sessions, session{id, s.CreatedAt, s.RotatedAt, s.ExpiresAt, s.Origin})
	}
	d.Devices = slices.SortedFunc(maps.Values(a.Devices), time.Time.Compare)
	for purpose, p := range sorted(a.Pending) {
		d.Pending = append(d.Pending, pending{Purpose: purpose, Email: p.Email, ExpiresAt: p.ExpiresAt})
	}
	for purpose, p := range sorted(a.Confirmed) {
		d.Confirmed = append(d.Confirmed, pending{Purpose: purpose, Email: p.Email, ExpiresAt: p.ExpiresAt, At: p.At})
	}
	for _, u := range sorted(a.Undo) {
		d.Undo = append(d.Undo, pending{event.EmailUndo, u.Email, u.ExpiresAt, u.At, u.VerifiedAt})
	}
	for _, h := range sorted(a.Handled) {
		d.Requests = append(d.Requests, request{h.At, h.Ended})
	}
	for _, e := range sorted(a.Events) {
		err = errors.Join(err, d.add(e))
	}
	for _, e := range sorted(a.Refused) {
		err = errors.Join(err, d.add(e.Event))
	}
	return d, err
}

// add adds an event without the nonce of its mail.
func (d *document) add(e outbox.Event) error {
	data := slices.DeleteFunc(slices.Clone(e.Data), func(member bson.E) bool { return member.Key == "nonce" })
	text, err := bson.MarshalExtJSON(data, false, false)
	d.Events = append(d.Events, storedEvent{e.Type, e.Time, text})
	return err
}

// sorted returns the entries of a map in the order of the keys.
func sorted[K cmp.Ordered, V any](all map[K]V) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, key := range slices.Sorted(maps.Keys(all)) {
			if !yield(key, all[key]) {
				return
			}
		}
	}
}
