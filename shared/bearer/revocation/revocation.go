// Package revocation is the format of the revocation feed. The feed lists the ended sessions, and the
// users with revoked tokens, until their access tokens have expired. Package bearer reads it.
package revocation

import (
	"errors"

	"github.com/go-json-experiment/json"
)

// The bounds of an Answer, and so of the memory of a consumer.
const (
	MaxWindow = 48 * 60 * 60 // of Answer.Window, in seconds
	maxCursor = 1 << 10      // bytes
	maxID     = 128          // bytes of a session id or user id
	lastDate  = 253402300799 // the end of the year 9999, as a NumericDate
)

// An Answer is the body of a response. It has either Sessions or a Filter. A request without a
// cursor receives all entries of the window, and a request with a cursor the entries since then.
type Answer struct {
	Cursor   string   `json:"cursor"`            // opaque; the next request sends it
	Window   int64    `json:"window"`            // how long a consumer stores an entry, in seconds
	Sessions []string `json:"sessions,omitzero"` // the ids of ended sessions; not nil without a Filter
	Filter   *Filter  `json:"filter,omitzero"`   // the ended sessions, if there are many
	Users    []User   `json:"users"`
}

// A User is a user whose older tokens are revoked.
type User struct {
	ID     string `json:"id"`
	Before int64  `json:"before"` // a NumericDate: tokens with a smaller iat are revoked
}

// Parse parses the JSON of an Answer. Its error never contains the data. Unknown members are
// ignored.
func Parse(data []byte) (*Answer, error) {
	var a Answer
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, errors.New("the answer does not have the format of the revocation feed")
	}
	switch {
	case a.Cursor == "" || len(a.Cursor) > maxCursor:
		return nil, errors.New("cursor is missing or longer than 1 KiB")
	case a.Window < 1 || a.Window > MaxWindow:
		return nil, errors.New("window is not a number of seconds from 1 to 172800")
	case (a.Sessions == nil) == (a.Filter == nil):
		return nil, errors.New("the answer does not have exactly one of sessions and filter")
	case a.Users == nil:
		return nil, errors.New("users is missing")
	}
	for _, id := range a.Sessions {
		if !validID(id) {
			return nil, errors.New("a session id is empty or longer than 128 bytes")
		}
	}
	for _, u := range a.Users {
		if !validID(u.ID) || u.Before < 1 || u.Before > lastDate {
			return nil, errors.New("a user has an id or a time that is not valid")
		}
	}
	return &a, nil
}

func validID(id string) bool { return 0 < len(id) && len(id) <= maxID }
