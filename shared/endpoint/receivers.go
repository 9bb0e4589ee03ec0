package endpoint

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"ticketing.com/auth/shared/events/event"
)

// An EventResponse is the response of the receivers of an event. If there is a reply event, the
// response is its data.
type EventResponse struct {
	Response
	Reply *event.Type // nil: no reply event
}

// InvokeReceivers calls the receivers of an event, and returns their response to the broker. waited
// is the part of their time limit that has passed.
//
// A process with several functions may have several receivers of a type. They run at the same
// time, each in its own time limit, so a slow or failing receiver does not affect the others.
// If a retry can help one of them, the broker delivers the event to all of them again: each is
// idempotent. Otherwise a reply takes precedence over an error, because the broker would not
// deliver the event again, and the reply would be lost. Package catalog allows one of the
// receivers to reply.
func InvokeReceivers(ctx context.Context, all []*Bound, request func() *Request, waited time.Duration) EventResponse {
	responses := make([]EventResponse, len(all))
	var group sync.WaitGroup
	for i, b := range all {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, b.Budget-waited)
			defer cancel()
			responses[i].Response, responses[i].Reply = b.InvokeEvent(ctx, request()) // never panics
		})
	}
	group.Wait()
	return slices.MaxFunc(responses, func(a, b EventResponse) int { return cmp.Compare(a.precedence(), b.precedence()) })
}

// precedence orders the responses of several receivers.
func (r EventResponse) precedence() int {
	switch {
	case r.Retried():
		return r.Status
	case r.Reply != nil:
		return 2
	case r.Status != http.StatusOK:
		return 1
	}
	return 0
}

// Retried reports whether a broker delivers the event again after the response.
func (r EventResponse) Retried() bool {
	switch r.Status {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return true
	}
	return r.Status >= http.StatusInternalServerError
}

// EventKey returns the key of an event. It is a digest of source and id, because these identify the
// event (CloudEvents 1.0 §"id"). So a repeated delivery has the same key.
func EventKey(source, id string) string { return digest("event", source, id) }

// ReplyID returns the id of the reply to the event with a key. It is a digest of the key, the
// reply type and the data. So a repeated delivery results in a reply with the same id unless
// the data differ, and a consumer can drop duplicates.
func ReplyID(key string, reply *event.Type, data []byte) string {
	return digest("reply", key, reply.Name, string(data))
}
