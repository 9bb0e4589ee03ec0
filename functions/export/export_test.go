package export

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/user"
)

// omitted lists the members of the stored document that an export omits, with the reason.
var omitted = map[string]string{
	"password":              "a hash",
	"sessions.*.family":     "a digest",
	"sessions.*.token":      "a digest",
	"sessions.*.used":       "digests",
	"sessions.*.generation": "a counter of the store",
	"devices.*":             "a digest as the key; its time is exported",
	"changes":               "a counter of the store",
	"pending.*.nonce":       "a part of a secret token",
	"confirmed.*.nonce":     "a part of a secret token",
	"undo.*":                "the nonce of a secret token as the key",
	"handled.*":             "a digest of an event as the key",
	"history.*":             "an id of the store as the key",
	"events.*":              "an id of the store as the key",
	"events.*.trace":        "an id of the telemetry",
	"events.*.tries":        "a counter of the store",
	"refused.*":             "an id of the store as the key",
	"refused.*.trace":       "an id of the telemetry",
	"refused.*.tries":       "a counter of the store",
	"refused.*.retryAt":     "a time of the delivery",
	"retryAt":               "a time of the delivery",
	"undelivered":           "the time of an event",
	"disabledAt":            "a disabled account has no valid session",
	"deletesAt":             "an account whose deletion is requested has no valid session",
	"erasedAt":              "an erased account has no valid session",
}

// A filler gives each member of a document a value of its own.
type filler struct {
	n      int
	values map[string]string // the JSON of the values, by path
}

func (f *filler) fill(v reflect.Value, path string) {
	f.n++
	at := time.Unix(int64(1_000_000_000+f.n), 0).UTC()
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(at))
		f.values[path] = at.Format(time.RFC3339)
		return
	case v.Type() == reflect.TypeFor[bson.D]():
		v.Set(reflect.ValueOf(bson.D{{Key: "email", Value: fmt.Sprint("data-", f.n)}, {Key: "nonce", Value: "secret-nonce"}}))
		f.values[path] = fmt.Sprint("data-", f.n)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), path)
	case reflect.Struct:
		for i := range v.NumField() {
			name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("bson"), ",")
			switch {
			case options == "inline":
				f.fill(v.Field(i), path)
			case name != "-":
				f.fill(v.Field(i), strings.TrimPrefix(path+"."+name, "."))
			}
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key := fmt.Sprint("key-", f.n)
		f.values[path+".*"] = key
		value := reflect.New(v.Type().Elem()).Elem()
		if member := path + ".*"; value.Type() == reflect.TypeFor[time.Time]() {
			f.fill(value, member+".")
		} else {
			f.fill(value, member)
		}
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), value)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(fmt.Sprint("bytes-", f.n)))
			f.values[path] = fmt.Sprint("bytes-", f.n)
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		f.fill(v.Index(0), path)
	case reflect.String:
		v.SetString(fmt.Sprint("text-", f.n))
		f.values[path] = fmt.Sprint("text-", f.n)
	case reflect.Int:
		v.SetInt(int64(1_000_000 + f.n))
		f.values[path] = fmt.Sprint(1_000_000 + f.n)
	default:
		panic("no value for a " + v.Type().String())
	}
}

// A new member of the stored document must be exported, or listed in omitted.
func TestDescribe_EveryMember(t *testing.T) {
	t.Parallel()
	var a user.Account
	f := filler{values: map[string]string{}}
	f.fill(reflect.ValueOf(&a).Elem(), "")
	d, err := describe(a)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(f.values)) {
		reason := ""
		for member := range omitted {
			if path == member || strings.HasPrefix(path, member+".") && !strings.HasSuffix(member, "*") {
				reason, used[member] = omitted[member], true
			}
		}
		if exported := strings.Contains(string(text), `"`+f.values[path]+`"`) || strings.Contains(string(text), ":"+f.values[path]); exported != (reason == "") {
			t.Errorf("%s: exported: %v; reason to omit it: %q; want one of them", path, exported, reason)
		}
	}
	for member := range omitted {
		if !used[member] {
			t.Errorf("the document has no member %s", member)
		}
	}
	if strings.Contains(string(text), "secret-nonce") {
		t.Error("the nonce of a mail is exported")
	}
	if len(f.values) < 60 {
		t.Errorf("got %d members, want at least 60", len(f.values))
	}
}

func TestExport(t *testing.T) { endpointtest.EveryTransport(t, Function, play) }

func play(t *testing.T, b *endpointtest.Fixture) {
	g := b.Given(t, "ann@example.com", "correct horse battery staple")
	bearer := endpointtest.Bearer(g.Token)
	sid := b.Session(t, g.RefreshToken)
	stored := b.Stored(t, "ann@example.com")
	file := http.Header{"Content-Disposition": {`attachment; filename=account.json`}}
	at := func(later time.Duration) string { return b.Clock.Now().Add(later).Format("2006-01-02T15:04:05.999Z") }
	want := `{"account":{"id":"` + g.User.ID + `","email":"ann@example.com","createdAt":"` + at(0) + `","roles":[],"sessionsOpened":1},
		"sessions":[{"id":"` + sid + `","createdAt":"` + at(0) + `","seenAt":"` + at(0) + `","expiresAt":"` + at(720*time.Hour) + `"}],
		"deviceSignIns":[],"history":[{"type":"signedup","at":"` + at(0) + `","sessionId":"` + sid + `"}],"pending":[],"confirmed":[],"earlierEmails":[],"mails":{},
		"ended":{"sessions":{}},"requestsOfServices":[],"undeliveredEvents":[]}`
	b.Play(t,
		endpointtest.Case{Name: "an account", Call: endpointtest.Call{Header: bearer}, Status: http.StatusOK, JSON: want, Want: file},
		endpointtest.Case{Name: "HEAD has no body", Call: endpointtest.Call{Method: http.MethodHead, Header: bearer}, Status: http.StatusOK, Want: file},
		endpointtest.Case{Name: "a token is required", Status: http.StatusUnauthorized, JSON: endpointtest.Errors("A bearer token is needed."), Want: http.Header{"Www-Authenticate": {"Bearer"}}},
	)
	b.Play(t, endpointtest.HostileTokens(bearer)...)
	b.Play(t, endpointtest.HostileRoutes(Function)...)
	if body := b.Do(t, endpointtest.Call{Header: bearer}).Body; strings.Contains(body, stored.Password) || strings.Contains(body, "argon2") {
		t.Error("the hash of the password is exported")
	}
	if err := b.Users.End(t.Context(), g.User.ID, sid); err != nil {
		t.Fatal(err)
	}
	endpointtest.Check(t, endpointtest.InvalidToken(endpointtest.Case{}), b.Do(t, endpointtest.Call{Header: bearer}))
}
