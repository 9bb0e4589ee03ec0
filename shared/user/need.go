package user

import "ticketing.com/auth/shared/endpoint"

// Collection is the collection of users.
var Collection = &endpoint.Collection{
	Database: "users",
	Name:     "users",
	Indexes: []endpoint.Index{
		{Keys: []string{"email"}, Unique: true},
		{Keys: []string{undeliveredQueue, "_id"}, Partial: true},
		{Keys: []string{retryQueue, "_id"}, Partial: true},
	},
	Former: []string{"undelivered_1"}, // for the relay; it covered every user
}

// Storing returns the need of a function that uses the store.
func Storing(actions ...endpoint.Action) endpoint.Need {
	need := Collection.Grant(actions...)
	need.Settings = []string{"SESSION_LIMIT"}
	return need
}
