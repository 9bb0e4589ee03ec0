package signin_test

import (
	"encoding/base64"
	"net/http"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	blowfish "golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
	"golang.org/x/text/unicode/norm"

	"ticketing.com/auth/functions/signin"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/user"
)

const (
	secret = "correct horse battery staple"
	good   = `{"email":"ann@example.com","password":"` + secret + `"}`
	// hashes of the same secret from other software
	bcrypt     = "$2a$05$Uji/OPCsFEfh528p4PqlauTFpUCG0ryxxS97AfLeL2HjoPD28oPZe"
	nodeScrypt = "e5e36d9a4863e4878d5adae40292e81790217b9076533d8c013c4d47b0159b0e65e163c8429d19935c6c772563eceec3d10120857419c53adad49aecf77a77f4.0f1e2d3c4b5a6978"
)

func granted(address string) string {
	return `{"user":{"id":"*","email":"` + address + `"},"token":"*","refreshToken":"*","expiresIn":900}`
}

func wrong(name, body string) endpointtest.Case {
	return endpointtest.Case{Name: name, Call: endpointtest.Call{Body: body}, Status: http.StatusUnauthorized,
		JSON: endpointtest.Errors("Email or password is wrong."), Want: http.Header{"Www-Authenticate": {"Bearer"}}}
}

func TestSignin(t *testing.T) { endpointtest.EveryTransport(t, signin.Function, play) }

func play(t *testing.T, b *endpointtest.Fixture) {
	b.Given(t, "ann@example.com", secret)
	long := strings.Repeat("x", 72)
	b.Given(t, "long@example.com", long+"1")
	ok := func(name, request, address string) endpointtest.Case {
		return endpointtest.Case{Name: name, Call: endpointtest.Call{Body: request}, Status: http.StatusOK, JSON: granted(address)}
	}
	bad := func(name, request, want string) endpointtest.Case {
		return endpointtest.Case{Name: name, Call: endpointtest.Call{Body: request}, Status: http.StatusBadRequest, JSON: want}
	}
	body := func(address, password string) string {
		return `{"email":"` + address + `","password":"` + password + `"}`
	}
	b.Play(t,
		ok("the right password opens a session", good, "ann@example.com"),
		ok("the email is lower-cased and trimmed", body(" ANN@Example.COM", secret), "ann@example.com"),
		ok("the password may be written with escapes", body("ann@example.com", strings.ReplaceAll(secret, "c", `\u0063`)), "ann@example.com"),
		ok("bytes beyond the 72nd count: the right ones", body("long@example.com", long+"1"), "long@example.com"),
		wrong("bytes beyond the 72nd count: wrong ones", body("long@example.com", long+"2")),
		wrong("a wrong password is rejected", body("ann@example.com", secret+"x")),
		wrong("a password in another case is rejected", body("ann@example.com", strings.ToUpper(secret))),
		wrong("a password with a space added is rejected", body("ann@example.com", secret+" ")),
		wrong("an empty password is rejected", body("ann@example.com", "")),
		wrong("an unknown email gets the same response", body("unknown@example.com", secret)),
		wrong("a password that the policy rejects is only wrong", body("ann@example.com", "12345678")),
		bad("a database operator is no password", `{"email":"ann@example.com","password":{"$ne":""}}`, endpointtest.FieldError("password", "password must be a string.")),
		bad("a database operator is no email", `{"email":{"$ne":""},"password":"`+secret+`"}`, endpointtest.FieldError("email", "email must be a string.")),
		bad("a password over 1 KiB is rejected before hashing", body("ann@example.com", strings.Repeat("x", 1025)), endpointtest.FieldError("password", "Password is too long.")),
		bad("all invalid fields are listed together", `{"email":7}`, `{"errors":[{"message":"email must be a string.","field":"email"},{"message":"password is missing.","field":"password"}]}`),
	)
	b.Play(t, endpointtest.HostileBodies(good)...)
	b.Play(t, endpointtest.HostileRoutes(signin.Function)...)
}

func TestSignin_SameResponseForEachReason(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function)
	b.Given(t, "ann@example.com", secret)
	b.Given(t, "locked@example.com", secret)
	b.Given(t, "broken@example.com", secret)
	set(t, b, "locked@example.com", bson.D{{Key: "disabledAt", Value: b.Clock.Now()}})
	set(t, b, "broken@example.com", bson.D{{Key: "password", Value: "$argon2id$v=19$m=99999999,t=1,p=1$AAAA$AAAA"}})
	var bodies []string
	for _, email := range []string{"unknown", "ann", "locked", "broken"} {
		password := secret
		if email == "ann" {
			password = "wrong"
		}
		c := wrong(email, `{"email":"`+email+`@example.com","password":"`+password+`"}`)
		a := b.Do(t, c.Call)
		endpointtest.Check(t, c, a)
		bodies = append(bodies, a.Body)
	}
	if len(slices.Compact(bodies)) != 1 {
		t.Errorf("got different bodies, want equal ones: %q", bodies)
	}
	if !strings.Contains(b.Logs(), "the stored password hash") {
		t.Error("a hash that cannot be verified is not logged")
	}
}

// The hash is most of the work of a sign-in. The bytes that the process allocates show the
// number of hashes; the response time is not reliable.
func TestSignin_FailureCostsOneHash(t *testing.T) {
	// Not parallel: countHashes counts the allocations of the process.
	b := endpointtest.New(t, signin.Function, "HASH_MEMORY_KIB=8192")
	b.Given(t, "ann@example.com", secret)
	b.Given(t, "locked@example.com", secret)
	set(t, b, "locked@example.com", bson.D{{Key: "disabledAt", Value: b.Clock.Now()}})
	for name, body := range map[string]string{
		"a wrong password":   `{"email":"ann@example.com","password":"wrong"}`,
		"an unknown email":   `{"email":"unknown@example.com","password":"wrong"}`,
		"a disabled account": `{"email":"locked@example.com","password":"` + secret + `"}`,
	} {
		if n := countHashes(8<<20, func() { b.Do(t, endpointtest.Call{Body: body}) }); n != 1 {
			t.Errorf("%s: got %d hashes, want 1", name, n)
		}
	}
}

// countHashes returns how many hashes of a memory size, in bytes, a call computes.
func countHashes(size uint64, call func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / size
}

func TestSignin_ReplacesImportedHash(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("computes strong hashes")
	}
	for name, stored := range map[string]string{"bcrypt": bcrypt, "scrypt of the Node service": nodeScrypt} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := endpointtest.New(t, signin.Function, minimumHash...)
			insert(t, b, bson.D{{Key: "_id", Value: "5f7c1c1c1c1c1c1c1c1c1c1c"}, {Key: "email", Value: "ann@example.com"}, {Key: "password", Value: stored}})
			b.Play(t, wrong("a wrong password is rejected", `{"email":"ann@example.com","password":"wrong"}`))
			if got := account(t, b).Password; got != stored {
				t.Fatalf("after a wrong password: got the hash %s, want it unchanged", got)
			}
			first := b.Do(t, endpointtest.Call{Body: good}).Grant(t)
			if first.User.ID != "5f7c1c1c1c1c1c1c1c1c1c1c" {
				t.Errorf("got the id %s, want it unchanged", first.User.ID)
			}
			replaced := account(t, b).Password
			if !strings.HasPrefix(replaced, "$argon2id$") {
				t.Fatalf("got the hash %s, want argon2id", replaced)
			}
			b.Do(t, endpointtest.Call{Body: good}).Grant(t)
			if account(t, b).Password != replaced {
				t.Error("a current hash was replaced")
			}
		})
	}
}

// minimumHash are the cheapest parameters that may replace the hash of another scheme.
var minimumHash = []string{"HASH_MEMORY_KIB=7168", "HASH_TIME=5", "HASH_TESTING=off"}

// A sign-in does not replace a stored hash that is stronger than a new one.
func TestSignin_StrongerStoredHash(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function)
	strong, err := password.New(password.Config{MemoryKiB: 65, Time: 1}).Hash(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, stored := range map[string]string{"argon2id": strong, "bcrypt": bcrypt, "scrypt": nodeScrypt} {
		email := name + "@example.com"
		b.GivenHash(t, email, stored)
		b.Do(t, endpointtest.Call{Body: `{"email":"` + email + `","password":"` + secret + `"}`}).Grant(t)
		if a, err := b.Users.Account(t.Context(), email); err != nil || a.Password != stored {
			t.Errorf("%s: got the hash %s and %v, want it unchanged", name, a.Password, err)
		}
	}
}

// bcrypt compares only 72 bytes of a password. A sign-in with other bytes beyond them must not
// replace the hash, and the user can still sign in.
func TestSignin_BcryptBeyond72Bytes(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function, minimumHash...)
	long := strings.Repeat("correct horse battery staple ", 4)
	imported, err := blowfish.GenerateFromPassword([]byte(long[:72]), blowfish.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	b.GivenHash(t, "ann@example.com", string(imported))
	for _, typed := range []string{long[:72] + "other bytes", long[:72], long} {
		b.Do(t, endpointtest.Call{Body: `{"email":"ann@example.com","password":"` + typed + `"}`}).Grant(t)
		if got := account(t, b).Password; got != string(imported) {
			t.Fatalf("got the hash %s, want it unchanged", got)
		}
	}
}

// Earlier versions and other systems hash the bytes as typed. Both Unicode forms of the password
// match such a hash, and the hash that replaces it.
func TestSignin_PasswordInEitherUnicodeForm(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("computes strong hashes")
	}
	composed := "Schl\u00fcsselbund-27" + strings.Repeat("\ud55c", 240) // 256 characters
	forms := []string{composed, norm.NFD.String(composed)}
	for _, hashed := range forms {
		for _, first := range forms {
			b := endpointtest.New(t, signin.Function, minimumHash...)
			call := func(typed string) endpointtest.Call {
				return endpointtest.Call{Body: `{"email":"ann@example.com","password":"` + typed + `"}`}
			}
			b.GivenHash(t, "ann@example.com", scryptOf(t, hashed))
			b.Do(t, call(first)).Grant(t)
			replaced := account(t, b).Password
			if !strings.HasPrefix(replaced, "$argon2id$") {
				t.Fatalf("got the hash %s, want argon2id", replaced)
			}
			for _, typed := range forms {
				b.Do(t, call(typed)).Grant(t)
			}
			if got := account(t, b).Password; got != replaced {
				t.Error("a current hash was replaced")
			}
			b.Play(t, wrong("another password is rejected", call(composed[1:]).Body))
		}
	}
}

// scryptOf returns the scrypt hash of the bytes of a password, as other systems store it.
func scryptOf(t *testing.T, plain string) string {
	t.Helper()
	salt := []byte("0123456789abcdef")
	key, err := scrypt.Key([]byte(plain), salt, 1<<10, 8, 1, 32)
	if err != nil {
		t.Fatal(err)
	}
	return "$scrypt$ln=10,r=8,p=1$" + base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(key)
}

// A hash that does not fit into the memory is an outage. It does not count as a wrong password.
func TestSignin_HashLargerThanMemory(t *testing.T) {
	// Not parallel: the memory limit applies to the whole process.
	limit := debug.SetMemoryLimit(64 << 20)
	t.Cleanup(func() { debug.SetMemoryLimit(limit) })
	b := endpointtest.New(t, signin.Function)
	grant := b.GivenHash(t, "ann@example.com", "$argon2id$v=19$m=102400,t=2,p=8$MDEyMzQ1Njc4OWFiY2RlZg$gy5SuVm5Z7Vw7keB9se9p87QGcomaseB/S2U1OhTsM0")
	for range 12 {
		endpointtest.Check(t, endpointtest.Case{Status: http.StatusServiceUnavailable, Want: http.Header{"Retry-After": {"60"}},
			JSON: endpointtest.Errors("The service is unavailable. Try again shortly.")}, b.Do(t, endpointtest.Call{Body: good}))
	}
	debug.SetMemoryLimit(limit)
	errors := 0
	for line := range strings.Lines(b.Logs()) {
		if strings.Contains(line, `"level":"ERROR"`) && strings.Contains(line, grant.User.ID) && strings.Contains(line, "needs 100 MiB") {
			errors++
		}
	}
	if errors != 12 {
		t.Errorf("got %d logged errors with the user and the memory, want 12:\n%s", errors, b.Logs())
	}
	stored, err := password.New(password.Config{MemoryKiB: 64, Time: 1}).Hash(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	set(t, b, "ann@example.com", bson.D{{Key: "password", Value: stored}})
	b.Do(t, endpointtest.Call{Body: good}).Grant(t) // the attempts above did not count
}

func TestSignin_ParallelWithImportedHash(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function, "HASH_CONCURRENCY=8")
	insert(t, b, bson.D{{Key: "_id", Value: "1"}, {Key: "email", Value: "ann@example.com"}, {Key: "password", Value: bcrypt}, {Key: "disabledAt", Value: nil}, {Key: "opened", Value: 0}})
	for _, a := range b.Race(t, 8, func(int) endpointtest.Call { return endpointtest.Call{Body: good} }) {
		a.Grant(t)
	}
	if n := len(account(t, b).Sessions); n != 8 {
		t.Errorf("got %d sessions, want 8", n)
	}
}

func TestSignin_EvictsOldestSession(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function, "SESSION_LIMIT=3")
	b.Given(t, "ann@example.com", secret)
	var sids []string
	for range 5 {
		b.Clock.Advance(time.Second)
		g := b.Do(t, endpointtest.Call{Body: good}).Grant(t)
		sids = append(sids, b.Claims(t, g.Token).Session)
	}
	sessions := account(t, b).Sessions
	for i, sid := range sids {
		if _, live := sessions[sid]; live != (i >= 2) {
			t.Errorf("session %d of 5: got live %v, want %v", i+1, live, i >= 2)
		}
	}
}

func TestSignin_SessionLimitInParallel(t *testing.T) {
	t.Parallel()
	for range 5 { // on a busy machine a request may exceed its budget; then the next sign-in ends the surplus
		b := endpointtest.New(t, signin.Function, "SESSION_LIMIT=5", "HASH_CONCURRENCY=12", "RATE_LIMIT=off")
		b.Given(t, "ann@example.com", secret)
		b.Race(t, 12, func(int) endpointtest.Call { return endpointtest.Call{Body: good} })
		if logs := b.Logs(); strings.Contains(logs, `"status":503`) || strings.Contains(logs, "not ended") || strings.Contains(logs, "not removed") {
			continue
		}
		if a := account(t, b); len(a.Sessions) != 5 || a.Opened != 13 {
			t.Errorf("got %d sessions and %d opened, want 5 and 13", len(a.Sessions), a.Opened)
		}
		return
	}
	t.Error("requests exceeded their budget in five races")
}

func TestSignin_RemovesExpiredSessions(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function)
	b.Given(t, "ann@example.com", secret)
	b.Clock.Advance(721 * time.Hour)
	b.Do(t, endpointtest.Call{Body: good}).Grant(t)
	if n := len(account(t, b).Sessions); n != 1 {
		t.Errorf("got %d sessions, want 1", n)
	}
}

// A response that differs from that to a wrong password would show that the account exists.
func TestSignin_UnreadableAccountIsLikeWrongPassword(t *testing.T) {
	t.Parallel()
	for name, member := range map[string]bson.E{
		"id":         {Key: "_id", Value: bson.NewObjectID()},
		"id of 129":  {Key: "_id", Value: strings.Repeat("x", 129)}, // bytes: too long for a refresh token
		"empty id":   {Key: "_id", Value: ""},
		"password":   {Key: "password", Value: 7},
		"disabledAt": {Key: "disabledAt", Value: true},
		"createdAt":  {Key: "createdAt", Value: "2026"},
		"devices":    {Key: "devices", Value: bson.A{}},
		"sessions":   {Key: "sessions", Value: "x"},
		"opened":     {Key: "opened", Value: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := endpointtest.New(t, signin.Function)
			document := bson.D{{Key: "_id", Value: "the-user-id"}, {Key: "email", Value: "ann@example.com"}, {Key: "password", Value: bcrypt}}
			id := "the-user-id"
			if i := slices.IndexFunc(document, func(e bson.E) bool { return e.Key == member.Key }); i >= 0 {
				document[i] = member
			} else {
				document = append(document, member)
			}
			switch value := member.Value.(type) {
			case bson.ObjectID:
				id = value.Hex()
			case string:
				if member.Key == "_id" {
					id = `"user":"` + value + `"`
				}
			}
			insert(t, b, document)
			unreadable := b.Do(t, endpointtest.Call{Body: good})
			unknown := b.Do(t, endpointtest.Call{Body: strings.Replace(good, "ann@", "bob@", 1)})
			unreadable.Header.Del("Date")
			unknown.Header.Del("Date")
			if !reflect.DeepEqual(unreadable, unknown) || unknown.Status != http.StatusUnauthorized {
				t.Errorf("got %+v, want the response to an unknown email: %+v", unreadable, unknown)
			}
			if log := b.Logs(); !strings.Contains(log, `"level":"ERROR"`) || !strings.Contains(log, id) {
				t.Errorf("the log has no error with the user %s: %s", id, log)
			}
		})
	}
}

// An unreadable session must not prevent a sign-in, and must not let an account exceed the
// limit of sessions.
func TestSignin_UnreadableSessionIsRemoved(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function, "SESSION_LIMIT=3")
	insert(t, b, bson.D{{Key: "_id", Value: "the-user-id"}, {Key: "email", Value: "ann@example.com"}, {Key: "password", Value: bcrypt},
		{Key: "sessions", Value: bson.D{{Key: "broken", Value: 7}, {Key: "odd", Value: bson.D{{Key: "expiresAt", Value: "never"}}}}}})
	for range 5 {
		b.Do(t, endpointtest.Call{Body: good}).Grant(t)
	}
	if a := account(t, b); len(a.Sessions) != 3 {
		t.Errorf("got %d stored sessions, want 3: %v", len(a.Sessions), a.Sessions)
	}
}

func account(t *testing.T, b *endpointtest.Fixture) user.Account {
	t.Helper()
	return b.Stored(t, "ann@example.com")
}

func insert(t *testing.T, b *endpointtest.Fixture, document bson.D) {
	t.Helper()
	if _, err := b.Collection(t).InsertOne(t.Context(), document); err != nil {
		t.Fatal(err)
	}
}

func set(t *testing.T, b *endpointtest.Fixture, email string, members bson.D) {
	t.Helper()
	result, err := b.Collection(t).UpdateOne(t.Context(), bson.D{{Key: "email", Value: email}}, bson.D{{Key: "$set", Value: members}})
	if err != nil || result.MatchedCount != 1 {
		t.Fatal(result, err)
	}
}
