package password

import "ticketing.com/auth/shared/endpoint"

// Hashing is the need of a function that hashes passwords.
var Hashing = endpoint.Need{
	Settings: []string{"HASH_MEMORY_KIB", "HASH_TIME", "HASH_CONCURRENCY", "HASH_TESTING"},
	Hashes:   true,
}
