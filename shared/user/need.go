package user

import (
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/outbox"
)

// Collection is the collection of users.
var Collection = &endpoint.Collection{
	Database: "users",
	Name:     "users",
	Indexes: append([]endpoint.Index{
		{Keys: []string{"email"}, Unique: true},
		{Keys: []string{"endedAt"}, Partial: true},   // Ended
		{Keys: []string{"deletesAt"}, Partial: true}, // EraseDue
		{Keys: []string{"removeAt"}, Expires: true},  // tombstones
	}, outbox.Indexes()...),
	Former: []string{"undelivered_1"}, // for the relay; it covered every user
}

// Storing returns the need of a function that uses the store.
func Storing(actions ...endpoint.Action) endpoint.Need {
	need := Collection.Grant(actions...)
	need.Settings = []string{"SESSION_LIMIT"}
	return need
}
