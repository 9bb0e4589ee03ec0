package e2e_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"

	"ticketing.com/auth/shared/user"
)

const (
	signedUp  = "com.ticketing.user.signedup.v1"
	signedIn  = "com.ticketing.user.signedin.v1"
	signedOut = "com.ticketing.user.signedout.v1"
)

// A change is what an event tells of.
type change struct{ userID, sessionID, eventType string }

// told are the changes that a sink was told of, and the reasons it was given.
type deliveredEvents map[change]string

// audit fails the test unless what the sink was told is what has happened, and
// returns it:
//   - each event is whole, the same on every try, the only one of its change, and
//     was taken at last;
//   - the users told of are those there are, with their sessions: every session
//     was begun by an event, and is there unless an event ended it;
//   - no event waits.
func (s *sink) checkDelivered(t *testing.T, uri string) deliveredEvents {
	t.Helper()
	all, first, changes, ids := deliveredEvents{}, map[string]delivery{}, map[string]change{}, map[change]string{}
	taken := map[string]bool{}
	for _, try := range s.deliveries() {
		if f, again := first[try.ID]; again {
			if f.Type != try.Type || f.Time != try.Time || f.Data != try.Data {
				t.Errorf("one id, two events:\n%s\n%s", f.raw, try.raw)
			}
		} else {
			first[try.ID] = try
			changed, reason := parseEvent(t, try)
			if other, twice := ids[changed]; twice {
				t.Errorf("%v is told as %s and as %s", changed, other, try.ID)
			}
			changes[try.ID], ids[changed], all[changed] = changed, try.ID, reason
		}
		taken[try.ID] = taken[try.ID] || try.accepted
	}
	for id, changed := range changes {
		if !taken[id] {
			t.Errorf("%v was never taken", changed)
		}
	}
	all.compareWithAccounts(t, accounts(t, uri))
	return all
}

// read checks an event on the wire and returns what it tells.
func parseEvent(t *testing.T, e delivery) (changed change, reason string) {
	t.Helper()
	var data struct {
		UserID    string `json:"userId"`
		Email     string `json:"email"`
		SessionID string `json:"sessionId"`
		Reason    string `json:"reason"`
	}
	d := json.NewDecoder(strings.NewReader(e.Data))
	d.DisallowUnknownFields()
	if err := d.Decode(&data); err != nil || e.ID == "" || data.UserID == "" || data.SessionID == "" && e.Type != signedUp {
		t.Errorf("no event of this system (%v):\n%s", err, e.raw)
	}
	for _, line := range []string{
		"Ce-Specversion: 1.0", "Ce-Source: /api/users", "Ce-Subject: " + data.UserID, "Ce-Partitionkey: " + data.UserID,
		"Content-Type: application/json",
	} {
		if !strings.Contains(e.raw, "\r\n"+line+"\r\n") {
			t.Errorf("without %q:\n%s", line, e.raw)
		}
	}
	switch {
	case e.Type == signedUp && data.Email != "" && data.Reason == "":
	case e.Type == signedIn && data.Email != "" && data.Reason == "":
	case e.Type == signedOut && data.Reason != "":
	default:
		t.Errorf("no event of this system:\n%s", e.raw)
	}
	return change{data.UserID, data.SessionID, e.Type}, data.Reason
}

// compare compares what was told with what is.
func (all deliveredEvents) compareWithAccounts(t *testing.T, accounts map[string]user.Account) {
	t.Helper()
	signed, begun, ended := map[string]bool{}, map[change]bool{}, map[change]bool{}
	for c := range all {
		of := change{userID: c.userID, sessionID: c.sessionID}
		switch c.eventType {
		case signedOut:
			ended[of] = true
		case signedUp:
			signed[c.userID] = true
			begun[of] = c.sessionID != "" // one who was signed up by an event has none
		case signedIn:
			begun[of] = true
		}
		if _, is := accounts[c.userID]; !is {
			t.Errorf("%v tells of nobody", c)
		}
	}
	for id, a := range accounts {
		if !signed[id] {
			t.Errorf("nobody was told of %s", a.Email)
		}
		if len(a.Events) > 0 || !a.Undelivered.IsZero() {
			t.Errorf("%d events of %s wait since %v", len(a.Events), a.Email, a.Undelivered)
		}
		for sid := range a.Sessions {
			if of := (change{userID: id, sessionID: sid}); !begun[of] || ended[of] {
				t.Errorf("session %s of %s lives; told that it began: %v, that it ended: %v", sid, a.Email, begun[of], ended[of])
			}
		}
	}
	for of, session := range begun {
		if _, lives := accounts[of.userID].Sessions[of.sessionID]; session && !lives && !ended[of] {
			t.Errorf("nobody was told of the end of %v", of)
		}
	}
	for of := range ended {
		if !begun[of] {
			t.Errorf("%v ended, and nobody was told that it began", of)
		}
	}
}

// has fails the test unless a change was told.
func (all deliveredEvents) require(t *testing.T, c change) {
	t.Helper()
	if _, is := all[c]; !is {
		t.Errorf("not told: %v", c)
	}
}

// holdsNone fails the test if anything that came has a secret in it: what is given
// here, a hash that is kept of it, or what looks like one.
func (s *sink) checkNoSecrets(t *testing.T, uri string, secrets []string) {
	t.Helper()
	secrets = append(secrets, "$argon2", "password", "eyJ") // the last begins every JWT
	for _, a := range accounts(t, uri) {
		secrets = append(secrets, a.Password)
		for _, kept := range a.Sessions {
			hashes := [][]byte{kept.Family, kept.Token}
			for _, used := range kept.Used {
				hashes = append(hashes, used.Token, used.Salt)
			}
			for _, hash := range hashes {
				secrets = append(secrets, hex.EncodeToString(hash), base64.StdEncoding.EncodeToString(hash), base64.RawURLEncoding.EncodeToString(hash))
			}
		}
	}
	var wires strings.Builder
	for _, try := range s.deliveries() {
		wires.WriteString(try.raw)
	}
	for _, secret := range secrets {
		if strings.Contains(strings.ToLower(wires.String()), strings.ToLower(secret)) {
			t.Errorf("an event carries %q", secret)
		}
	}
}

// accounts returns all users that there are, by their ids.
func accounts(t *testing.T, uri string) map[string]user.Account {
	t.Helper()
	cursor, err := usersCollection(t, uri).Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var all []user.Account
	if err := cursor.All(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	byID := map[string]user.Account{}
	for _, a := range all {
		byID[a.ID] = a
	}
	return byID
}

// collection returns the users of a database, past all of the system.
func usersCollection(t *testing.T, uri string) *mongo.Collection {
	t.Helper()
	parsed, err := connstring.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Disconnect(context.Background()) })
	return client.Database(parsed.Database).Collection("users")
}
