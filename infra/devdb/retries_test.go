package main

import (
	"encoding/binary"
	"fmt"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// retryableUpdate returns an update of a session with a transaction number.
func retryableUpdate(t *testing.T, session string, number int64) message {
	t.Helper()
	body, err := bson.Marshal(bson.D{
		{Key: "update", Value: "c"}, {Key: "$db", Value: "test"},
		{Key: "lsid", Value: bson.D{{Key: "id", Value: bson.Binary{Subtype: 4, Data: []byte(session)}}}}, {Key: "txnNumber", Value: number},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := newCommand(body)
	binary.LittleEndian.PutUint32(m[4:], uint32(number))
	return m
}

func TestRetries_SameTransactionNumberExecutesOnce(t *testing.T) {
	executed, ok := int32(0), 1.0
	b := newFixture(t, func(m message) message {
		executed++
		body, err := bson.Marshal(bson.D{{Key: "n", Value: executed}, {Key: "ok", Value: ok}})
		if err != nil {
			t.Error(err)
		}
		return newCommand(body).asReplyTo(m)
	}).open()
	expect := func(when, session string, number int64, want int32) {
		t.Helper()
		// each on a new connection, as after a lost connection
		if got := roundTrip(t, b.client(), retryableUpdate(t, session, number)).document().Lookup("n").Int32(); got != want {
			t.Errorf("%s: got the reply of execution %d, want %d", when, got, want)
		}
	}
	expect("first attempt", "one", 1, 1)
	expect("retry", "one", 1, 1)
	expect("another session", "two", 1, 2)
	expect("next write of the session", "one", 2, 3)
	expect("retry", "one", 2, 3)
	reply := roundTrip(t, b.client(), retryableUpdate(t, "one", 1)).document()
	if code, ok := reply.Lookup("code").Int32(), reply.Lookup("ok").Double(); code != 225 || ok != 0 {
		t.Errorf("an earlier write after a later one of its session: got %s, want ok 0 and code 225", reply)
	}
	ok = 0
	expect("a failure", "one", 3, 4)
	ok = 1
	expect("after a failure", "one", 3, 5)
	for i := range 2 * maxSessions {
		b.retries.store(fmt.Sprint(i), 1, newCommand(bson.Raw("\x0d\x00\x00\x00\x10ok\x00\x01\x00\x00\x00\x00")))
	}
	if len(b.retries.writes) != maxSessions || len(b.retries.sessions) != maxSessions {
		t.Errorf("stored %d writes of %d sessions, want %d of each", len(b.retries.writes), len(b.retries.sessions), maxSessions)
	}
}
