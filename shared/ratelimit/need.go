package ratelimit

import "ticketing.com/auth/shared/endpoint"

// Collection is the collection of the counters. Its index deletes expired ones.
var Collection = &endpoint.Collection{
	Database: "users",
	Name:     "ratelimits",
	Indexes:  []endpoint.Index{{Keys: []string{"expiresAt"}, Expires: true}},
}

// Counting returns the need of a function with rate limits, given the names of their
// settings.
func Counting(limits ...string) endpoint.Need {
	need := Collection.Grant(endpoint.Find, endpoint.Insert, endpoint.Update)
	need.Settings = append([]string{"RATE_LIMIT", "TRUSTED_PROXIES", "PROXY_NETWORKS"}, limits...)
	need.ReadsClient = true
	return need
}
