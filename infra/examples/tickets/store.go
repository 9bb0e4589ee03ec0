package main

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"
)

// A ticket is a document. Its JSON form is public.
type ticket struct {
	ID      bson.ObjectID `bson:"_id" json:"id"`
	Title   string        `bson:"title" json:"title"`
	Price   int64         `bson:"price" json:"price"`          // in cents
	Owner   string        `bson:"owner" json:"owner,omitzero"` // a user's id, or "" after the deletion of the user
	OnSale  bool          `bson:"onSale" json:"onSale"`
	Version int64         `bson:"version" json:"version"`     // the number of changes
	Outbox  []string      `bson:"outbox,omitempty" json:"-"`  // undelivered events, the oldest first
	Pending bool          `bson:"pending,omitempty" json:"-"` // the outbox has an event
}

var errNotFound = refuse(http.StatusNotFound, "There is no such ticket.")

// A store is the collection of tickets, and the sink of their events.
type store struct {
	tickets *mongo.Collection
	sink    cloudevents.Client // nil without a sink
	changed chan struct{}      // has an element after a change
}

// newStore returns a store. It opens no connection.
func newStore(uri, sink string) (*store, error) {
	address, err := connstring.ParseAndValidate(uri)
	if err != nil { // the text of the driver's error may contain a password
		return nil, errors.New("MONGODB_URI is not set to a MongoDB URI")
	}
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return nil, errors.New("MONGODB_URI has an option that is not valid")
	}
	s := &store{tickets: client.Database(cmp.Or(address.Database, "tickets")).Collection("tickets"), changed: make(chan struct{}, 1)}
	if sink != "" {
		s.sink, err = newSink(sink)
	}
	return s, err
}

// prepare creates the indexes, and then delivers events until the context is cancelled.
func (s *store) prepare(ctx context.Context) {
	for err := s.createIndexes(ctx); err != nil && ctx.Err() == nil; err = s.createIndexes(ctx) {
		log.Warn("the indexes are not created", "error", err)
		time.Sleep(time.Second)
	}
	s.deliverChanges(ctx)
}

func (s *store) createIndexes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for _, keys := range []bson.D{
		{{Key: "onSale", Value: 1}, {Key: "_id", Value: 1}}, // list
		{{Key: "owner", Value: 1}},                          // removeOwner
		{{Key: "pending", Value: 1}},                        // send
	} {
		if _, err := s.tickets.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: keys}); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.tickets.Database().Client().Disconnect(ctx)
}

func (s *store) find(ctx context.Context, id string) (t ticket, err error) {
	parsed, err := bson.ObjectIDFromHex(id)
	if err != nil || parsed.Hex() != id { // upper case would be a second name of a ticket
		return t, errNotFound
	}
	err = s.tickets.FindOne(ctx, bson.M{"_id": parsed}).Decode(&t)
	if errors.Is(err, mongo.ErrNoDocuments) {
		err = errNotFound
	}
	return t, err
}

func (s *store) list(ctx context.Context, after bson.ObjectID, limit int64) (page []ticket, err error) {
	cursor, err := s.tickets.Find(ctx, bson.M{"onSale": true, "_id": bson.M{"$gt": after}},
		options.Find().SetSort(bson.M{"_id": 1}).SetLimit(limit).SetProjection(bson.M{"outbox": 0}))
	if err != nil {
		return nil, err
	}
	return page, cursor.All(ctx, &page)
}

func (s *store) create(ctx context.Context, t *ticket) error {
	if err := s.record(t, typeCreated); err != nil {
		return err
	}
	_, err := s.tickets.InsertOne(ctx, t)
	s.wake()
	return err
}

// change applies a change to a ticket, and writes it with its event in one replacement. The
// filter has the version that was read. After a concurrent change it matches no document. Then
// change reads the ticket and applies the change again.
func (s *store) change(ctx context.Context, id, event string, apply func(*ticket) error) (ticket, error) {
	for {
		t, err := s.find(ctx, id)
		if err != nil {
			return t, err
		}
		unchanged := bson.M{"_id": t.ID, "version": t.Version}
		if err := apply(&t); err != nil {
			return t, err
		}
		t.Version++
		if err := s.record(&t, event); err != nil {
			return t, err
		}
		result, err := s.tickets.ReplaceOne(ctx, unchanged, t)
		if err != nil || result.MatchedCount == 1 {
			s.wake()
			return t, err
		}
	}
}

// removeOwner removes a deleted user from the user's tickets. After a failure, a second call
// continues. A call for a user without tickets changes nothing.
func (s *store) removeOwner(ctx context.Context, user string) error {
	cursor, err := s.tickets.Find(ctx, bson.M{"owner": user}, options.Find().SetProjection(bson.M{"_id": 1}))
	if err != nil {
		return err
	}
	var owned []ticket
	if err := cursor.All(ctx, &owned); err != nil {
		return err
	}
	errTransferred := errors.New("the ticket has another owner")
	for _, t := range owned {
		_, err := s.change(ctx, t.ID.Hex(), typeUpdated, func(t *ticket) error {
			if t.Owner != user {
				return errTransferred
			}
			t.Owner, t.OnSale = "", false
			return nil
		})
		if err != nil && err != errTransferred {
			return err
		}
	}
	return nil
}
