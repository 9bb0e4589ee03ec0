package main

import (
	"encoding/binary"
	"fmt"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// retryable returns an update of a session.
func retryable(t *testing.T, session string, number int64) message {
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

func TestRetries_AWriteIsExecutedOnce(t *testing.T) {
	executed, ok := int32(0), 1.0
	b := newBench(t, func(m message) message {
		executed++
		body, err := bson.Marshal(bson.D{{Key: "n", Value: executed}, {Key: "ok", Value: ok}})
		if err != nil {
			t.Error(err)
		}
		return newCommand(body).answering(m)
	}).open()
	replies := func(when, session string, number int64, want int32) {
		t.Helper()
		// each on a connection of its own, as after the loss of one
		if got := ask(t, b.client(), retryable(t, session, number)).document().Lookup("n").Int32(); got != want {
			t.Errorf("%s: the reply is that of execution %d, want %d", when, got, want)
		}
	}
	replies("the first", "one", 1, 1)
	replies("again", "one", 1, 1)
	replies("another session", "two", 1, 2)
	replies("the next of the session", "one", 2, 3)
	replies("again", "one", 2, 3)
	reply := ask(t, b.client(), retryable(t, "one", 1)).document()
	if code, ok := reply.Lookup("code").Int32(), reply.Lookup("ok").Double(); code != 225 || ok != 0 {
		t.Errorf("one that comes after the next of its session: %s, want code 225", reply)
	}
	ok = 0
	replies("a failure", "one", 3, 4)
	ok = 1
	replies("after a failure", "one", 3, 5)
	for i := range 2 * maxSessions {
		b.retries.remember(fmt.Sprint(i), 1, newCommand(bson.Raw("\x0d\x00\x00\x00\x10ok\x00\x01\x00\x00\x00\x00")))
	}
	if len(b.retries.writes) != maxSessions || len(b.retries.sessions) != maxSessions {
		t.Errorf("%d writes of %d sessions are kept, want %d", len(b.retries.writes), len(b.retries.sessions), maxSessions)
	}
}
