package credentials

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/user"
)

func newConfig(t *testing.T) *config.Config {
	t.Helper()
	settings := map[string]string{"MONGODB_URI": mongotest.URI(t), "HASH_MEMORY_KIB": "1024", "HASH_TESTING": "on"}
	cfg := config.New(func(name string) (string, bool) { v, ok := settings[name]; return v, ok },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
	t.Cleanup(func() { cfg.Close(context.Background()) })
	return cfg
}

// stored returns the n and pending of the counters of accounts and devices.
func stored(t *testing.T, cfg *config.Config) string {
	t.Helper()
	c, err := mongodb.FromConfig(cfg).Collection(t.Context(), ratelimit.Collection)
	if err != nil {
		t.Fatal(err)
	}
	cursor, err := c.Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		ID         string `bson:"_id"`
		N, Pending int
	}
	if err := cursor.All(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	found := map[string][2]int{}
	for _, c := range all {
		if kind, _, _ := strings.Cut(c.ID, ":"); kind != "signin" {
			found[kind] = [2]int{c.N, c.Pending}
		}
	}
	return fmt.Sprint(found)
}

// The account changes between its two reads. The second check is a separate attempt.
func TestCheck_AccountChanges(t *testing.T) {
	const secret, device = "correct horse battery", "AAAAAAAAAAAAAAAAAAAAAA"
	known := map[string]time.Time{Digest(device): time.Now()}
	for _, c := range []struct {
		name     string
		password string // of the account after the change
		device   string // that the client presents
		devices  map[string]time.Time
		err      error
		stored   string
	}{
		{"the password remains", secret, "", nil, nil, "map[account:[0 0]]"},
		{"another password", "another password", "", nil, ErrWrong, "map[account:[1 0]]"},
		{"another password, of a known device", "another password", device, known, ErrWrong, "map[device:[1 0]]"},
		{"another password, and the device is forgotten", "another password", device, nil, ErrWrong, "map[account:[1 0] device:[0 0]]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := newConfig(t)
			checker := FromConfig(cfg)
			if err := cfg.Err(); err != nil {
				t.Fatal(err)
			}
			account := func(plain string, devices map[string]time.Time) user.Account {
				hash, err := checker.passwords.Hash(t.Context(), plain)
				if err != nil {
					t.Fatal(err)
				}
				a := user.Account{Password: hash, Devices: devices}
				a.ID = "ann"
				return a
			}
			accounts := []user.Account{account(secret, known), account(c.password, c.devices)}
			reads, opened := 0, 0
			claim := Claim{Email: "ann@example.com", Password: secret, Find: func(context.Context) (user.Account, error) {
				reads++
				return accounts[reads-1], nil
			}}
			claim.Client.Peer, claim.Client.Device = "192.0.2.1:1", c.device
			err := checker.Check(t.Context(), claim, func(context.Context, Proof) error {
				if opened++; opened == 1 {
					return user.ErrChanged
				}
				return nil
			})
			if !errors.Is(err, c.err) || reads != 2 {
				t.Errorf("got %v after %d reads, want %v after 2", err, reads, c.err)
			}
			if got := stored(t, cfg); got != c.stored {
				t.Errorf("stored %s, want %s", got, c.stored)
			}
		})
	}
}
