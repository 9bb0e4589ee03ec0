package mail_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.opentelemetry.io/collector/pdata/pcommon"

	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/local/mailbox"
	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/mail/journal"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/testing/otlptest"
	"ticketing.com/auth/shared/user"
)

// A broker delivers each event to one URL, and records what passed through it.
type broker struct {
	*httptest.Server
	mu     sync.Mutex
	target string
	stream strings.Builder
}

func newBroker(t *testing.T) *broker {
	b := &broker{}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

func (b *broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	fmt.Fprintln(&b.stream, r.Header, string(body))
	target := b.target
	b.mu.Unlock()
	if strings.Contains(r.Header.Get("Ce-Type"), ".mail.requested.") {
		forwarded, _ := http.NewRequestWithContext(r.Context(), http.MethodPost, target+"/", strings.NewReader(string(body)))
		forwarded.Header = r.Header.Clone()
		response, err := http.DefaultClient.Do(forwarded)
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		response.Body.Close()
		w.WriteHeader(response.StatusCode)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func (b *broker) Stream() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stream.String()
}

// No token, code, key or password of the life of an account is in the database, in the stream of the
// events, in a log or in the exported spans and metrics. These contain no identity either.
func TestAccount_StoresNoSecrets(t *testing.T) {
	t.Parallel()
	uri, dir := mongotest.URI(t), t.TempDir()
	if err := keyring.Create(dir, "EdDSA", time.Now()); err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.EnsureMail(dir)
	if err != nil {
		t.Fatal(err)
	}
	box, err := mailbox.Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Stop()
	if code, stderr := e2e.Run(t, []string{"MONGODB_URI=" + uri}, "migrate"); code != 0 {
		t.Fatalf("migrate: %s", stderr)
	}
	b, collector := newBroker(t), otlptest.New(t)
	p := e2e.Start(t, "allinone", "MONGODB_URI="+uri, "EVENTS=insecure", "LOG_LEVEL=debug", "K_SINK="+b.URL, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL,
		"SIGNING_KEYS_FILE="+filepath.Join(dir, keyring.SigningFile), "VERIFYING_KEYS_FILE="+filepath.Join(dir, keyring.VerifyingFile),
		"SMTP_URL="+box.URL(), "MAIL_KEYS_FILE="+keys, "MAIL_FROM=no-reply@ticketing.example", "PUBLIC_URL=https://ticketing.example")
	b.mu.Lock()
	b.target = p.URL
	b.mu.Unlock()

	secrets := map[string]string{}
	call := func(want int, path, token string, body map[string]string) map[string]any {
		t.Helper()
		raw, _ := json.Marshal(body)
		status, _, answer, err := e2e.Call(t.Context(), http.MethodPost, p.URL+"/api/users/"+path, token, string(raw))
		if err != nil || status != want {
			t.Fatalf("%s: got %d %s %v, want %d", path, status, answer, err, want)
		}
		var members map[string]any
		json.Unmarshal([]byte(answer), &members)
		for _, name := range []string{"token", "refreshToken"} {
			if s, is := members[name].(string); is {
				secrets["a "+name+" of "+path] = s
			}
		}
		return members
	}
	link := func(purpose string) (token string) {
		t.Helper()
		found := regexp.MustCompile(`/confirm/` + purpose + `#(\S+)`)
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			for _, m := range box.Mails() {
				if match := found.FindStringSubmatch(m.Text); match != nil {
					if code := regexp.MustCompile(`\b\d{6}\b`).FindString(strings.Replace(m.Text, match[0], "", 1)); code != "" {
						secrets["the code of "+purpose] = `"` + code + `"` // without quotes, six digits can be a part of any number
					}
					secrets["the token of "+purpose] = match[1]
					return match[1]
				}
			}
		}
		t.Fatalf("got no mail for %s", purpose)
		return ""
	}
	const first, second, third = "first horse battery staple", "second horse battery staple", "third horse battery staple"
	for _, password := range []string{first, second, third} {
		secrets["the password "+password[:6]] = password
	}
	signedUp := call(201, "signup", "", map[string]string{"email": "ann@example.com", "password": first})
	token := signedUp["token"].(string)
	call(200, "verification/confirm", "", map[string]string{"token": link("verification")})
	call(200, "password", token, map[string]string{"currentPassword": first, "newPassword": second})
	call(202, "recovery", "", map[string]string{"email": "ann@example.com"})
	call(200, "recovery/confirm", "", map[string]string{"token": link("recovery"), "newPassword": third})
	call(401, "signin", "", map[string]string{"email": "ann@example.com", "password": first})
	token = call(200, "signin", "", map[string]string{"email": "ann@example.com", "password": third})["token"].(string)
	call(202, "email", token, map[string]string{"email": "bob@example.com", "currentPassword": third})
	call(200, "email/confirm", "", map[string]string{"token": link("email")})
	call(400, "email/undo", "", map[string]string{"token": link("undo") + "A"})
	call(202, "account/deletion", token, map[string]string{"currentPassword": third})

	for _, name := range []string{keyring.SigningFile, keyring.MailFile} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range regexp.MustCompile(`[A-Za-z0-9_-]{43}`).FindAllString(string(content), -1) {
			secrets["a key of "+name+" "+secret[:2]] = secret
		}
	}
	p.Signal(os.Interrupt)
	for where, text := range map[string]string{"the database": dump(t, uri), "the stream of the events": b.Stream(), "the log": p.Logs()} {
		if !strings.Contains(text, "user") {
			t.Errorf("%s is empty", where)
		}
		for name, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s contains %s", where, name)
			}
		}
	}
	if len(secrets) < 15 {
		t.Errorf("got %d secrets, want at least 15: %v", len(secrets), secrets)
	}
	secrets["an email"], secrets["an address"] = "@example.com", "127.0.0.1"
	secrets["the id of the account"] = signedUp["user"].(map[string]any)["id"].(string)
	for name, secret := range secrets {
		if strings.Contains(collector.Received(), secret) {
			t.Errorf("the exported spans and metrics contain %s", name)
		}
	}
	if strings.Contains(p.Logs(), "@example.com") {
		t.Error("the log contains an email")
	}
	checkSpans(t, collector)
	for _, e := range []telemetry.SecurityEvent{telemetry.SignInFailed, telemetry.PasswordChanged, telemetry.EmailChanged} {
		if !regexp.MustCompile(`"security":"` + string(e) + `","user":"\w+","network":"127.0.0.0/24"`).MatchString(p.Logs()) {
			t.Errorf("no log line has the security event %s with the account and the network:\n%s", e, p.Logs())
		}
	}
	for name, want := range map[string]map[string]float64{
		"auth.password.checks auth.outcome": {"succeeded": 4, "failed": 1},
		"auth.sessions.ended auth.reason":   {"recovery": 1, "deleted": 1},
		"faas.init_duration ":               {"": 1},
	} {
		metric, attribute, _ := strings.Cut(name, " ")
		if got := collector.Sum(t, metric, attribute); !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", metric, got, want)
		}
	}
	if got := collector.Sum(t, "messaging.client.sent.messages", "messaging.destination.name"); got["com.ticketing.user.signedup.v1"] != 1 {
		t.Errorf("messaging.client.sent.messages: got %v, want one sign-up", got)
	}
	if got := collector.Sum(t, "auth.mails", "auth.outcome"); got["sent"] < 4 {
		t.Errorf("auth.mails: got %v, want at least 4 sent", got)
	}
	if got := collector.Sum(t, "auth.password_hash.wait.duration", ""); got[""] < 7 {
		t.Errorf("auth.password_hash.wait.duration: got %v, want at least 7 hashes", got)
	}
}

// checkSpans checks that the trace of the sign-up has the spans of all layers, and that each of their
// parents is in it.
func checkSpans(t *testing.T, collector *otlptest.Collector) {
	t.Helper()
	var trace pcommon.TraceID
	for _, s := range collector.Spans() {
		if s.Name() == "POST /api/users/signup" {
			trace = s.TraceID()
		}
	}
	names, ids, parents := map[string]bool{}, map[pcommon.SpanID]bool{{}: true}, map[string]pcommon.SpanID{}
	for _, s := range collector.Spans() {
		if s.TraceID() == trace {
			names[s.Name()], ids[s.SpanID()], parents[s.Name()] = true, true, s.ParentSpanID()
		}
	}
	for _, want := range []string{"POST /api/users/signup", "signup", "insert users", "password hash queue", "password hash",
		"send com.ticketing.user.signedup.v1", "send com.ticketing.user.mail.requested.v1", "POST /", "mail", "send mail"} {
		if !names[want] {
			t.Errorf("the trace of the sign-up has no span %q: got %v", want, slices.Sorted(maps.Keys(names)))
		}
	}
	for name, parent := range parents {
		if !ids[parent] {
			t.Errorf("the parent of the span %q is not in the trace", name)
		}
	}
}

// dump returns all documents of a database as JSON.
func dump(t *testing.T, uri string) string {
	t.Helper()
	db, err := mongodb.New(uri)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	var all strings.Builder
	for _, collection := range []*endpoint.Collection{user.Collection, ratelimit.Collection, journal.Collection} {
		c, err := db.Collection(t.Context(), collection)
		if err != nil {
			t.Fatal(err)
		}
		found, err := c.Find(t.Context(), bson.D{})
		if err != nil {
			t.Fatal(err)
		}
		var documents []bson.M
		if err := found.All(t.Context(), &documents); err != nil {
			t.Fatal(err)
		}
		for _, d := range documents {
			text, err := bson.MarshalExtJSON(d, false, false)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&all, collection.Name, string(text))
		}
	}
	return all.String()
}
