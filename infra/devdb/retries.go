package main

import (
	"bytes"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// maxSessions is how many sessions have their last write stored. A driver has about as
// many sessions as it has commands in flight.
const maxSessions = 1024

// retries makes writes retryable. A replica set supports that, FerretDB does not. A
// driver that gets no reply, because the connection was lost, sends the write again with
// the same session and transaction number. If the first attempt was executed, the second
// gets the stored reply and changes nothing. The same holds if the attempts arrive in
// reverse order.
//
// Drivers retry writes only on servers that support it, so the proxy presents itself as
// mongos. A replica set would report member addresses, and the driver would connect to
// those instead.
//
// The stored replies are lost when the process ends. A retry after that repeats the
// write.
//
// Source: "Retryable Writes" of MongoDB's driver specifications.
type retries struct {
	writes   map[string]write // by session
	sessions []string         // in the order of their first write
}

type write struct {
	number int64
	reply  message
}

// retryable returns the session and the number of a retryable write.
func (c command) retryable() (session string, number int64, is bool) {
	body := c.body()
	number, isNumber := body.Lookup("txnNumber").Int64OK()
	_, id, isBinary := body.Lookup("lsid", "id").BinaryOK()
	return string(id), number, isNumber && isBinary
}

// reply returns the stored reply to a write that was executed before, or nil.
func (r *retries) reply(session string, number int64) message {
	last, is := r.writes[session]
	switch {
	case !is || number > last.number:
		return nil
	case number == last.number:
		return last.reply
	}
	body, err := bson.Marshal(bson.D{{Key: "ok", Value: 0.0}, {Key: "code", Value: int32(225)}, {Key: "codeName", Value: "TransactionTooOld"},
		{Key: "errmsg", Value: "a later write of the session was executed"}})
	if err != nil {
		panic(err)
	}
	return newCommand(body)
}

// store stores the reply to a write that was executed.
func (r *retries) store(session string, number int64, reply message) {
	if ok, _ := reply.document().Lookup("ok").AsFloat64OK(); ok != 1 {
		return
	}
	if r.writes == nil {
		r.writes = map[string]write{}
	}
	if _, is := r.writes[session]; !is {
		if len(r.sessions) == maxSessions {
			delete(r.writes, r.sessions[0])
			r.sessions = r.sessions[1:]
		}
		r.sessions = append(r.sessions, session)
	}
	r.writes[session] = write{number, reply}
}

// isHello reports whether a request is the OP_QUERY that drivers send first.
func isHello(request message) bool {
	const numbers = 4 + 4 // numbers of documents to skip and to return
	if len(request) < headerLength+4 || request.opcode() != opQuery {
		return false
	}
	_, rest, _ := bytes.Cut(request[headerLength+4:], []byte{0}) // the flags and the collection name
	if len(rest) < numbers {
		return false
	}
	first, err := bson.Raw(rest[numbers:]).IndexErr(0)
	return err == nil && (first.Key() == "isMaster" || first.Key() == "ismaster" || first.Key() == "hello")
}
