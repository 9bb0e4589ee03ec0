package e2e_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

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

// A change identifies the change that an event reports.
type change struct{ userID, sessionID, eventType string }

// deliveredEvents maps each change that a sink received an event for to the reason in that
// event. Only a sign-out has a reason.
type deliveredEvents map[change]string

// pendingUsers returns the number of users with a pending event.
func pendingUsers(t *testing.T, users *mongo.Collection) int {
	t.Helper()
	n, err := users.CountDocuments(t.Context(), bson.D{{Key: "undelivered", Value: bson.D{{Key: "$exists", Value: true}}}})
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// awaitDeliveries waits until at most this many users have a pending event, or a process stops.
func awaitDeliveries(t *testing.T, users *mongo.Collection, pending int, stopped <-chan struct{}) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for pendingUsers(t, users) > pending {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-stopped:
			return
		case <-deadline:
			t.Fatalf("more than %d users have pending events after 30 s", pending)
		}
	}
}

// checkDelivered waits for the deliveries in flight. Then it compares the events at the sink with
// the database, and returns the events. It fails the test unless these hold:
//
//   - Each event is complete, is the same in every delivery, and is the only event of its
//     change. The sink accepted it at least once.
//   - Each user in the database has a sign-up event, and each user in an event exists.
//   - Each session began with an event. It exists unless another event ended it.
//   - No event is pending.
func (s *sink) checkDelivered(t *testing.T, uri string) deliveredEvents {
	t.Helper()
	awaitDeliveries(t, usersCollection(t, uri), 0, nil)
	delivered, first, changes, ids := deliveredEvents{}, map[string]delivery{}, map[string]change{}, map[change]string{}
	accepted := map[string]bool{}
	for _, d := range s.deliveries() {
		if f, again := first[d.ID]; again {
			if f.Type != d.Type || f.Time != d.Time || f.Data != d.Data {
				t.Errorf("got two events with one id, want the same event:\n%s\n%s", f.raw, d.raw)
			}
		} else {
			first[d.ID] = d
			c, reason := parseEvent(t, d)
			if other, twice := ids[c]; twice {
				t.Errorf("got events %s and %s of change %v, want one", other, d.ID, c)
			}
			changes[d.ID], ids[c], delivered[c] = c, d.ID, reason
		}
		accepted[d.ID] = accepted[d.ID] || d.accepted
	}
	for id, c := range changes {
		if !accepted[id] {
			t.Errorf("the sink accepted no delivery of change %v, want one", c)
		}
	}
	delivered.compareWithAccounts(t, accounts(t, uri))
	return delivered
}

// parseEvent checks the headers and the data of a delivery, also with the committed schemas. It
// returns the change and the reason.
func parseEvent(t *testing.T, d delivery) (c change, reason string) {
	t.Helper()
	var data struct {
		UserID    string `json:"userId"`
		Email     string `json:"email"`
		SessionID string `json:"sessionId"`
		Reason    string `json:"reason"`
	}
	decoder := json.NewDecoder(strings.NewReader(d.Data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&data); err != nil || d.ID == "" || data.UserID == "" || data.SessionID == "" && d.Type != signedUp {
		t.Errorf("got an incomplete event (%v):\n%s", err, d.raw)
	}
	for _, line := range []string{
		"Ce-Specversion: 1.0", "Ce-Source: /api/users", "Ce-Subject: " + data.UserID, "Ce-Partitionkey: " + data.UserID,
		"Content-Type: application/json",
	} {
		if !strings.Contains(d.raw, "\r\n"+line+"\r\n") {
			t.Errorf("the event has no line %q:\n%s", line, d.raw)
		}
	}
	v, err := committed()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.validate(d.header(t), d.Data); err != nil {
		t.Errorf("%v:\n%s", err, d.raw)
	}
	switch {
	case d.Type == signedUp && data.Email != "" && data.Reason == "":
	case d.Type == signedIn && data.Email != "" && data.Reason == "":
	case d.Type == signedOut && data.Reason != "":
	default:
		t.Errorf("got an event of an unknown type, or with wrong fields for its type:\n%s", d.raw)
	}
	return change{data.UserID, data.SessionID, d.Type}, data.Reason
}

// compareWithAccounts compares the events with the users and sessions in the database.
func (delivered deliveredEvents) compareWithAccounts(t *testing.T, accounts map[string]user.Account) {
	t.Helper()
	signedUpUsers, begun, ended := map[string]bool{}, map[change]bool{}, map[change]bool{}
	for c := range delivered {
		session := change{userID: c.userID, sessionID: c.sessionID}
		switch c.eventType {
		case signedOut:
			ended[session] = true
		case signedUp:
			signedUpUsers[c.userID] = true
			begun[session] = c.sessionID != "" // a sign-up by an event creates no session
		case signedIn:
			begun[session] = true
		}
		if _, exists := accounts[c.userID]; !exists {
			t.Errorf("got an event of change %v, but its user does not exist", c)
		}
	}
	for id, a := range accounts {
		if !signedUpUsers[id] {
			t.Errorf("got no sign-up event of %s, want one", a.Email)
		}
		if len(a.Events) > 0 || !a.Undelivered.IsZero() {
			t.Errorf("got %d pending events of %s since %v, want 0", len(a.Events), a.Email, a.Undelivered)
		}
		for sid := range a.Sessions {
			if session := (change{userID: id, sessionID: sid}); !begun[session] || ended[session] {
				t.Errorf("session %s of %s exists: got a begin event: %v, an end event: %v; want true, false", sid, a.Email, begun[session], ended[session])
			}
		}
	}
	for session, hasSession := range begun {
		if _, exists := accounts[session.userID].Sessions[session.sessionID]; hasSession && !exists && !ended[session] {
			t.Errorf("session %v does not exist: got no event of its end, want one", session)
		}
	}
	for session := range ended {
		if !begun[session] {
			t.Errorf("session %v ended: got no event of its begin, want one", session)
		}
	}
}

// require fails the test unless the sink received an event for a change.
func (delivered deliveredEvents) require(t *testing.T, c change) {
	t.Helper()
	if _, received := delivered[c]; !received {
		t.Errorf("got no event of change %v, want one", c)
	}
}

// checkNoSecrets fails the test if a delivery contains a secret: one of the parameter, a hash
// in the database, or a string with the form of a hash or a token.
func (s *sink) checkNoSecrets(t *testing.T, uri string, secrets []string) {
	t.Helper()
	secrets = append(secrets, "$argon2", "password", "eyJ") // every JWT begins with eyJ
	for _, a := range accounts(t, uri) {
		secrets = append(secrets, a.Password)
		for _, session := range a.Sessions {
			hashes := [][]byte{session.Family, session.Token}
			for _, used := range session.Used {
				hashes = append(hashes, used.Token, used.Salt)
			}
			for _, hash := range hashes {
				secrets = append(secrets, hex.EncodeToString(hash), base64.StdEncoding.EncodeToString(hash), base64.RawURLEncoding.EncodeToString(hash))
			}
		}
	}
	var received strings.Builder
	for _, d := range s.deliveries() {
		received.WriteString(d.raw)
	}
	for _, secret := range secrets {
		if strings.Contains(strings.ToLower(received.String()), strings.ToLower(secret)) {
			t.Errorf("a delivery contains the secret %q", secret)
		}
	}
}

// accounts returns all users in the database by id.
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

// usersCollection returns the users collection of a database, on a connection of its own.
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
