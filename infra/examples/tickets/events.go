package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/go-json-experiment/json"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	typeUserDeleted = "com.ticketing.user.deleted.v1" // of the auth system
	typeCreated     = "com.ticketing.ticket.created.v1"
	typeUpdated     = "com.ticketing.ticket.updated.v1"
	typeTransferred = "com.ticketing.ticket.transferred.v1"

	outboxLimit = 100 // undelivered events of a ticket
	sendTimeout = 5 * time.Second
)

// receive handles an event from the broker. The broker retries after 5xx, and not after 400. An
// event that arrives twice changes nothing the second time.
func (s *service) receive(w http.ResponseWriter, r *http.Request) (int, any, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	event, err := cehttp.NewEventFromHTTPRequest(r)
	if err != nil || event.Validate() != nil {
		return 0, nil, refuse(http.StatusBadRequest, "The request is not a valid CloudEvent.")
	}
	var data struct {
		UserID string `json:"userId"`
	}
	if event.Type() != typeUserDeleted || json.Unmarshal(event.Data(), &data) != nil || data.UserID == "" {
		return 0, nil, refuse(http.StatusBadRequest, "The event must be "+typeUserDeleted+" with a userId.")
	}
	return http.StatusNoContent, nil, s.store.removeOwner(r.Context(), data.UserID)
}

// newSink returns a client for the URL in K_SINK.
func newSink(url string) (cloudevents.Client, error) {
	client, err := cloudevents.NewClientHTTP(cloudevents.WithTarget(url), cehttp.WithClient(http.Client{Timeout: sendTimeout}))
	if err != nil {
		return nil, errors.New("K_SINK is not a URL")
	}
	return client, nil
}

// record adds the event of a change to the outbox of the ticket. The id of the event has the
// version of the ticket, so the event has the same id on each delivery.
//
// The event is stored in the same write as the change. So there is an event for each stored
// change, and for no other. Delivery starts after the write and does not delay the response. An
// event stays in the outbox until the sink has accepted it. An event that the sink did not accept
// is sent again after the next change of any ticket, and at the next start of the service. So
// the sink receives each event at least once. Two processes can send the events of one ticket at
// the same time. So a receiver ignores an id that it has processed, and a version that is older
// than the version that it knows.
//
// A ticket with 100 undelivered events cannot change.
func (s *store) record(t *ticket, kind string) error {
	if s.sink == nil {
		return nil
	}
	if len(t.Outbox) >= outboxLimit {
		return refuse(http.StatusServiceUnavailable, "The ticket has too many undelivered events.")
	}
	event := cloudevents.NewEvent()
	event.SetID(fmt.Sprintf("%s-%d", t.ID.Hex(), t.Version))
	event.SetSource("/api/tickets")
	event.SetType(kind)
	event.SetSubject(t.ID.Hex())
	event.SetExtension("partitionkey", t.ID.Hex())
	event.SetTime(time.Now())
	if err := event.SetData(cloudevents.ApplicationJSON, t); err != nil {
		return err
	}
	text, err := json.Marshal(event)
	t.Outbox, t.Pending = append(t.Outbox, string(text)), true
	return err
}

// wake starts a delivery, unless one will start anyway.
func (s *store) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// deliverChanges delivers events now, and after each change until the context is cancelled.
func (s *store) deliverChanges(ctx context.Context) {
	for {
		s.deliver(ctx)
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
	}
}

// deliver sends the events in the outboxes of all tickets. It ends at the first event that the
// sink does not accept.
func (s *store) deliver(ctx context.Context) {
	if s.sink == nil {
		return
	}
	if err := s.send(ctx); err != nil && ctx.Err() == nil {
		log.Warn("events remain in the outbox", "error", err)
	}
}

func (s *store) send(ctx context.Context) error {
	cursor, err := s.tickets.Find(ctx, bson.M{"pending": true})
	if err != nil {
		return err
	}
	defer cursor.Close(ctx)
	for cursor.Next(ctx) {
		var t ticket
		if err := cursor.Decode(&t); err != nil {
			return err
		}
		for _, text := range t.Outbox {
			event := cloudevents.NewEvent()
			if err := json.Unmarshal([]byte(text), &event); err != nil {
				return err
			}
			if result := s.sink.Send(ctx, event); !cloudevents.IsACK(result) {
				return result
			}
		}
		// After a concurrent change the filter matches no document. The delivery after that change
		// sends all events of the ticket.
		_, err := s.tickets.UpdateOne(ctx, bson.M{"_id": t.ID, "version": t.Version}, bson.M{"$unset": bson.M{"outbox": "", "pending": ""}})
		if err != nil {
			return err
		}
	}
	return cursor.Err()
}
