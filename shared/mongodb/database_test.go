package mongodb

import (
	"testing"

	"ticketing.com/auth/shared/endpoint"
)

func TestDatabaseOf(t *testing.T) {
	for uri, want := range map[string][2]string{
		"mongodb://h":            {"users", "tickets"},
		"mongodb://h/users":      {"users", "tickets"},
		"mongodb://h/staging":    {"staging", "staging_tickets"},
		"mongodb+srv://h/users?": {"users", "tickets"},
	} {
		got := [2]string{databaseOf(uri, &endpoint.Collection{Database: "users"}), databaseOf(uri, &endpoint.Collection{Database: "tickets"})}
		if got != want {
			t.Errorf("%s: got %v, want %v", uri, got, want)
		}
	}
}
