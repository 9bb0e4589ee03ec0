package signup_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/unicode/norm"

	"ticketing.com/auth/functions/signup"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/testing/endpointtest"
)

const (
	good   = `{"email":"ann@example.com","password":"correct horse battery staple"}`
	secret = "correct horse battery staple"
)

func created(address string) string {
	return `{"user":{"id":"*","email":"` + address + `"},"token":"*","refreshToken":"*","expiresIn":900}`
}

func TestSignup(t *testing.T) {
	t.Parallel()
	endpointtest.EveryTransport(t, signup.Function, play, "RATE_LIMIT_SIGNUP=1000/10m")
}

func play(t *testing.T, b *endpointtest.Fixture) {
	b.Given(t, "taken@example.com", secret)
	b.Play(t, cases()...)
	b.Play(t, endpointtest.HostileBodies(good)...)
	b.Play(t, endpointtest.HostileRoutes(signup.Function)...)
}

// cases are the behaviours of a sign-up where taken@example.com is in use.
func cases() []endpointtest.Case {
	body := func(address string) string {
		return `{"email":"` + address + `","password":"` + secret + `"}`
	}
	ok := func(name, request, address string) endpointtest.Case {
		return endpointtest.Case{Name: name, Call: endpointtest.Call{Body: request}, Status: http.StatusCreated, JSON: created(address)}
	}
	bad := func(name, request, want string) endpointtest.Case {
		return endpointtest.Case{Name: name, Call: endpointtest.Call{Body: request}, Status: http.StatusBadRequest, JSON: want}
	}
	field := endpointtest.FieldError
	return []endpointtest.Case{
		ok("a new email gets an account and a session", good, "ann@example.com"),
		ok("the email is lower-cased and trimmed", body(" Bob.B@Example.COM "), "bob.b@example.com"),
		ok("an international domain becomes its A-label", body("c@bücher.example"), "c@xn--bcher-kva.example"),
		ok("unknown members are ignored", `{"$where":"1","isAdmin":true,"Email":5,"PASSWORD":[],`+body("d@example.com")[1:], "d@example.com"),
		ok("a password of 256 characters is accepted", `{"email":"e@example.com","password":"`+strings.Repeat("aZ9ü-Q", 42)+`k2ßx"}`, "e@example.com"),
		ok("a password of 256 characters in NFD is accepted", `{"email":"nfd@example.com","password":"`+norm.NFD.String(strings.Repeat("한글은어려워", 42)+"\u1f82k2ß")+`"}`, "nfd@example.com"),
		ok("white space belongs to the password", `{"email":"f@example.com","password":"  \tcorrect horse\n "}`, "f@example.com"),
		endpointtest.Case{Name: "parameters of the content type are allowed", Status: http.StatusCreated, JSON: created("g@example.com"),
			Call: endpointtest.Call{Body: body("g@example.com"), Header: http.Header{"Content-Type": {"Application/JSON; charset=utf-8"}}}},
		endpointtest.Case{Name: "a body of exactly 16 KiB is accepted", Status: http.StatusCreated, JSON: created("h@example.com"),
			Call: endpointtest.Call{Body: body("h@example.com") + strings.Repeat(" ", 16<<10-len(body("h@example.com")))}},
		endpointtest.Case{Name: "other identity headers and the query are ignored", Status: http.StatusCreated, JSON: created("i@example.com"),
			Call: endpointtest.Call{Path: "/api/users/signup?email=x@y.z", Body: body("i@example.com"), Header: http.Header{"X-User-Id": {"1"}, "Cookie": {"token=x"}}}},

		bad("a used email is rejected", body("taken@example.com"), field("email", "This email is in use.")),
		bad("a used email in another spelling is rejected", body(" TAKEN@Example.com"), field("email", "This email is in use.")),
		bad("all invalid fields are listed together", `{"email":"x","password":"x"}`, `{"errors":[{"message":"*","field":"email"},{"message":"*","field":"password"}]}`),
		bad("all missing fields are listed together", `{}`, `{"errors":[{"message":"email is missing.","field":"email"},{"message":"password is missing.","field":"password"}]}`),
		bad("member names are case-sensitive", `{"Email":"a@b.co","Password":"`+secret+`"}`, `{"errors":[{"message":"email is missing.","field":"email"},{"message":"password is missing.","field":"password"}]}`),
		bad("a wrong type and a weak password are listed together", `{"email":1,"password":"12345678"}`, `{"errors":[{"message":"email must be a string.","field":"email"},{"message":"*","field":"password"}]}`),
		bad("a database operator is no email", `{"email":{"$gt":""},"password":"`+secret+`"}`, field("email", "email must be a string.")),
		bad("a database operator is no password", `{"email":"a@b.co","password":{"$ne":null}}`, field("password", "password must be a string.")),
		bad("an array is no email", `{"email":["a@b.co"],"password":"`+secret+`"}`, field("email", "email must be a string.")),
		bad("a number is no password", `{"email":"a@b.co","password":1234567890123}`, field("password", "password must be a string.")),
		bad("null is no email", `{"email":null,"password":"`+secret+`"}`, field("email", "email must be a string.")),
		bad("true is no password", `{"email":"a@b.co","password":true}`, field("password", "password must be a string.")),
		bad("an empty email is rejected", body(""), field("email", "*")),
		bad("a line break within the email is rejected", body(`a@b.co\nBcc: c@d.co`), field("email", "*")),
		bad("a common password is rejected", `{"email":"a@b.co","password":"iloveyou1"}`, field("password", "Password is too easy to guess.")),
		bad("a common password of another language is rejected", `{"email":"a@b.co","password":"MotDePasse"}`, field("password", "Password is too easy to guess.")),
		bad("the name of the platform is rejected", `{"email":"a@b.co","password":"Ticketing-2026!"}`, field("password", "Password is too easy to guess.")),
		bad("seven characters in fourteen code points are rejected", `{"email":"a@b.co","password":"`+strings.Repeat("e\u0301", 7)+`"}`, field("password", "Password must have at least 8 characters.")),
		bad("a password made of the email is rejected", `{"email":"zebrafinch@plumage.example","password":"zebrafinch2026"}`, field("password", "Password must not be made of your email.")),
		bad("a password of seven characters is rejected", `{"email":"a@b.co","password":"xK9ßvQz"}`, field("password", "*")),
		bad("a password of 257 characters is rejected", `{"email":"a@b.co","password":"`+strings.Repeat("aZ9-Q", 51)+`ab"}`, field("password", "*")),
		bad("a password over 1 KiB is rejected", `{"email":"a@b.co","password":"`+strings.Repeat("𝔞𝔟", 129)+`"}`, field("password", "*")),
	}
}

func TestSignup_Grant(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signup.Function, "ACCESS_TOKEN_TTL=10m")
	g := b.Do(t, endpointtest.Call{Body: good}).Grant(t)
	claims := b.Claims(t, g.Token)
	if claims.Subject != g.User.ID || claims.Email != "ann@example.com" || claims.Session == "" || claims.ID == "" || g.ExpiresIn != 600 {
		t.Errorf("the claims %+v do not match the grant %+v", claims, g)
	}
	u, err := b.Users.Session(t.Context(), claims.Subject, claims.Session, b.Clock.Now())
	if err != nil || u != g.User {
		t.Errorf("the user of the session: got %v and %v, want %v", u, err, g.User)
	}
}

func TestSignup_ParallelWithOneEmail(t *testing.T) {
	t.Parallel()
	inTime := endpointtest.WithBudget(signup.Function, 2*time.Minute) // also on a busy machine
	b := endpointtest.New(t, inTime, "HASH_CONCURRENCY=30", "RATE_LIMIT=off")
	accounts := 0
	for _, a := range b.Race(t, 30, func(int) endpointtest.Call { return endpointtest.Call{Body: good} }) {
		switch a.Status {
		case http.StatusCreated:
			accounts++
		case http.StatusBadRequest:
			endpointtest.Check(t, endpointtest.Case{Status: 400, JSON: endpointtest.FieldError("email", "This email is in use.")}, a)
		default:
			t.Errorf("got %d %s, want 201 or 400", a.Status, a.Body)
		}
	}
	if accounts != 1 {
		t.Errorf("got %d accounts, want 1", accounts)
	}
}

func TestSignup_LogsNoSecrets(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signup.Function)
	g := b.Do(t, endpointtest.Call{Body: good}).Grant(t)
	b.Do(t, endpointtest.Call{Body: good})                                                       // the email is in use
	b.Do(t, endpointtest.Call{Body: `{"email":"ann@example.com","password":"` + secret + `"x}`}) // malformed JSON around the secret
	b.Do(t, endpointtest.Call{Body: `{"email":"ann@example.com","password":["` + secret + `"]}`})
	b.Do(t, endpointtest.Call{Path: "/api/users/signup/" + g.Token, Body: good})
	logs := b.Logs()
	for _, s := range []string{secret, g.Token, g.RefreshToken, "ann@example.com", "argon2id", "E11000"} {
		if strings.Contains(logs, s) {
			t.Errorf("the log contains %q:\n%s", s, logs)
		}
	}
	if n := strings.Count(logs, `"msg":"request"`); n != 5 {
		t.Errorf("got %d log lines for 5 requests, want 5:\n%s", n, logs)
	}
}

func TestInput_Validate(t *testing.T) {
	t.Parallel()
	in := signup.Input{Email: "not an email", Password: secret}
	var bad apierror.Fields
	in.Validate(&bad)
	if !bad.Has("email") || bad.Has("password") {
		t.Errorf("got the errors %v, want one of the email only", bad.Err())
	}
}

// The settings of the policy apply to the route and to the event. Errors of the email and of the
// password are listed together.
func TestSignup_PolicySettings(t *testing.T) {
	t.Parallel()
	list := filepath.Join(t.TempDir(), "list.txt")
	if err := os.WriteFile(list, []byte("a zebra finch of my own\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := endpointtest.New(t, signup.Function, "EVENTS=on", "PASSWORD_MIN_LENGTH=15", "PASSWORD_BLOCKLIST_FILE="+list)
	for i, tt := range []struct{ password, want string }{
		{"fourteen chars", "Password must have at least 15 characters."},
		{"A Zebra Finch of my own", "Password is too easy to guess."},
	} {
		body := `{"email":"x","password":"` + tt.password + `"}`
		want := `{"errors":[{"message":"*","field":"email"},{"message":"` + tt.want + `","field":"password"}]}`
		endpointtest.Check(t, endpointtest.Case{Status: http.StatusBadRequest, JSON: want}, b.Do(t, endpointtest.Call{Body: body}))
		b.Deliver(t, endpointtest.Binary, endpointtest.Event(strconv.Itoa(i), requested, body)).Expect(t, http.StatusOK, refused, want)
	}
	b.Do(t, endpointtest.Call{Body: `{"email":"ann@example.com","password":"responsibilities"}`}).Grant(t) // the built-in list has it
}

func TestSignup_PasswordIsNormalised(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signup.Function)
	b.Do(t, endpointtest.Call{Body: `{"email":"ann@example.com","password":"Schlu\u0308sselbund\u00a027"}`}).Grant(t)
	a, err := b.Users.Account(t.Context(), "ann@example.com")
	if err != nil {
		t.Fatal(err)
	}
	hasher := password.New(password.Config{MemoryKiB: 64, Time: 1})
	if ok, stale, err := hasher.Verify(t.Context(), a.Password, "Schl\u00fcsselbund 27"); !ok || stale || err != nil {
		t.Errorf("the composed form: got %v, %v, %v, want true, false, nil", ok, stale, err)
	}
}
