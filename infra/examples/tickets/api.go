package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json" // rejects duplicate names and invalid UTF-8, unlike encoding/json
	"github.com/go-json-experiment/json/jsontext"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/bearer"
)

const (
	maxBody        = 16 << 10 // bytes
	requestTimeout = 10 * time.Second
)

type service struct {
	store  *store
	bearer *bearer.Verifier
}

// routes returns the handler of all requests. A pattern without a method receives the methods
// that no other pattern names.
func (s *service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /api/tickets", handler(s.list))
	mux.Handle("POST /api/tickets", s.signedIn(s.create))
	mux.Handle("/api/tickets", otherMethod("GET, HEAD, POST"))
	mux.Handle("GET /api/tickets/{id}", handler(s.show))
	mux.Handle("PUT /api/tickets/{id}", s.signedIn(s.update))
	mux.Handle("/api/tickets/{id}", otherMethod("GET, HEAD, PUT"))
	mux.Handle("POST /api/tickets/{id}/transfer", s.signedIn(s.transfer))
	mux.Handle("/api/tickets/{id}/transfer", otherMethod("POST"))
	mux.Handle("POST /{$}", handler(s.receive))
	mux.Handle("/", handler(func(http.ResponseWriter, *http.Request) (int, any, error) {
		return 0, nil, refuse(http.StatusNotFound, "There is nothing at this path.")
	}))
	return mux
}

// signedIn passes the id of the user to next. It refuses a request without a valid access token.
func (s *service) signedIn(next func(w http.ResponseWriter, r *http.Request, user string) (int, any, error)) http.Handler {
	return s.bearer.Require(handler(func(w http.ResponseWriter, r *http.Request) (int, any, error) {
		claims, _ := bearer.FromContext(r.Context())
		return next(w, r, claims.Subject)
	}))
}

func otherMethod(allow string) handler {
	return func(w http.ResponseWriter, _ *http.Request) (int, any, error) {
		w.Header().Set("Allow", allow)
		return 0, nil, refuse(http.StatusMethodNotAllowed, "This method is not allowed here.")
	}
}

// list returns a page of the tickets on sale. The member next is the value of after for the next
// page.
func (s *service) list(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return 0, nil, refuse(http.StatusBadRequest, "The query is not valid.")
	}
	var in input
	limit, after := uint64(20), bson.NilObjectID
	if given, found := query["limit"]; found {
		limit, err = strconv.ParseUint(given[0], 10, 8)
		in.require(err == nil && len(given) == 1 && limit >= 1 && limit <= 100, "limit", "Limit must be a number from 1 to 100.")
	}
	if given, found := query["after"]; found {
		after, err = bson.ObjectIDFromHex(given[0])
		in.require(err == nil && len(given) == 1, "after", "After must be the member next of a page.")
	}
	if in.invalid != nil {
		return 0, nil, in.problem()
	}
	var page struct {
		Tickets []ticket `json:"tickets"`
		Next    string   `json:"next,omitzero"`
	}
	page.Tickets, err = s.store.list(r.Context(), after, int64(limit)+1)
	if n := int(limit); len(page.Tickets) > n {
		page.Tickets, page.Next = page.Tickets[:n], page.Tickets[n-1].ID.Hex()
	}
	return http.StatusOK, page, err
}

func (s *service) create(w http.ResponseWriter, r *http.Request, user string) (int, any, error) {
	in, err := decode(w, r)
	if err != nil {
		return 0, nil, err
	}
	t := ticket{ID: bson.NewObjectID(), Title: in.title(), Price: in.price(), Owner: user, OnSale: true, Version: 1}
	if in.invalid != nil {
		return 0, nil, in.problem()
	}
	if err := s.store.create(r.Context(), &t); err != nil {
		return 0, nil, err
	}
	w.Header().Set("Location", "/api/tickets/"+t.ID.Hex())
	return http.StatusCreated, answer{t}, nil
}

func (s *service) show(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	t, err := s.store.find(r.Context(), r.PathValue("id"))
	return http.StatusOK, answer{t}, err
}

// update changes a ticket. The client sends the version that it has read, so it cannot overwrite
// a change that it has not seen.
func (s *service) update(w http.ResponseWriter, r *http.Request, user string) (int, any, error) {
	in, err := decode(w, r)
	if err != nil {
		return 0, nil, err
	}
	title, price := in.title(), in.price()
	onSale := member(in, "onSale", "OnSale must be true or false.", func(bool) bool { return true })
	version := member(in, "version", "Version must be the version that you have read.", func(n int64) bool { return n > 0 })
	return s.changeOwn(r, user, in, typeUpdated, func(t *ticket) error {
		if t.Version != version {
			return refuse(http.StatusConflict, "The ticket has changed. Read it again.")
		}
		t.Title, t.Price, t.OnSale = title, price, onSale
		return nil
	})
}

// transfer gives a ticket to another user. The service cannot check that this user exists.
func (s *service) transfer(w http.ResponseWriter, r *http.Request, user string) (int, any, error) {
	in, err := decode(w, r)
	if err != nil {
		return 0, nil, err
	}
	to := member(in, "to", "To must be the id of another user.", func(id string) bool { return userID.MatchString(id) && id != user })
	return s.changeOwn(r, user, in, typeTransferred, func(t *ticket) error {
		t.Owner, t.OnSale = to, false
		return nil
	})
}

var userID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

func (s *service) changeOwn(r *http.Request, user string, in *input, event string, apply func(*ticket) error) (int, any, error) {
	if in.invalid != nil {
		return 0, nil, in.problem()
	}
	t, err := s.store.change(r.Context(), r.PathValue("id"), event, func(t *ticket) error {
		if t.Owner != user {
			return refuse(http.StatusForbidden, "Only the owner may do this.")
		}
		return apply(t)
	})
	return http.StatusOK, answer{t}, err
}

type answer struct {
	Ticket ticket `json:"ticket"`
}

// An input is the JSON object of a request, and the errors of its members.
type input struct {
	members map[string]jsontext.Value
	invalid []item
}

// decode reads the body: one JSON object of at most 16 KiB.
func decode(w http.ResponseWriter, r *http.Request) (*input, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" || !strings.EqualFold(cmp.Or(r.Header.Get("Content-Encoding"), "identity"), "identity") {
		return nil, refuse(http.StatusUnsupportedMediaType, "The body must be application/json without an encoding.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, refuse(http.StatusRequestEntityTooLarge, "The body must have at most 16 KiB.")
	}
	in := new(input)
	if err != nil || json.Unmarshal(body, &in.members) != nil {
		return nil, refuse(http.StatusBadRequest, "The body must be a JSON object.")
	}
	return in, nil
}

// member returns a member of the input. It must be present, not null, of type T and valid.
func member[T any](in *input, name, message string, valid func(T) bool) (value T) {
	raw := in.members[name]
	in.require(raw != nil && raw.Kind() != 'n' && json.Unmarshal(raw, &value) == nil && valid(value), name, message)
	return value
}

func (in *input) require(valid bool, field, message string) {
	if !valid {
		in.invalid = append(in.invalid, item{message, field})
	}
}

func (in *input) problem() error { return &problem{http.StatusBadRequest, in.invalid} }

func (in *input) title() string {
	return strings.TrimSpace(member(in, "title", "Title must have 1 to 200 characters, and no control characters.", func(s string) bool {
		n := utf8.RuneCountInString(strings.TrimSpace(s))
		return n >= 1 && n <= 200 && !strings.ContainsFunc(s, unicode.IsControl)
	}))
}

func (in *input) price() int64 {
	return member(in, "price", "Price must be a whole number of cents from 1 to 100000000.", func(n int64) bool { return n >= 1 && n <= 1e8 })
}

// A problem is an error response in the format of the platform.
type problem struct {
	status int
	Errors []item `json:"errors"`
}

type item struct {
	Message string `json:"message"`
	Field   string `json:"field,omitzero"`
}

func (p *problem) Error() string { return p.Errors[0].Message }

func refuse(status int, message string) error { return &problem{status, []item{{Message: message}}} }

// A handler returns the status and the body of a response, or an error. An error that is not a
// problem is unexpected. Only the log receives it.
type handler func(http.ResponseWriter, *http.Request) (status int, body any, err error)

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	status, body, err := h(w, r.WithContext(ctx))
	if err != nil {
		p, expected := errors.AsType[*problem](err)
		if !expected {
			log.Error("the request failed", "pattern", r.Pattern, "error", err)
			p = &problem{http.StatusInternalServerError, []item{{Message: "The service failed."}}}
			if mongo.IsTimeout(err) || mongo.IsNetworkError(err) {
				p.status = http.StatusServiceUnavailable
			}
		}
		status, body = p.status, p
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if body == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.MarshalWrite(w, body) // an error means that the client has disconnected
}
