package refresh_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/functions/refresh"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/user"
)

func exchange(token string) endpointtest.Call {
	return endpointtest.Call{Body: `{"refreshToken":"` + token + `"}`}
}

func invalid(name, token string) endpointtest.Case {
	return endpointtest.InvalidToken(endpointtest.Case{Name: name, Call: exchange(token)})
}

func TestRefresh(t *testing.T) { endpointtest.EveryTransport(t, refresh.Function, play) }

func play(t *testing.T, b *endpointtest.Fixture) {
	g := b.Given(t, "ann@example.com", "a password")
	target := b.Given(t, "target@example.com", "a password").RefreshToken
	bad := func(name, body, want string) endpointtest.Case {
		return endpointtest.Case{Name: name, Call: endpointtest.Call{Body: body}, Status: http.StatusBadRequest, JSON: want}
	}
	b.Play(t,
		endpointtest.Case{Name: "a refresh token is exchanged", Call: exchange(g.RefreshToken), Status: http.StatusOK,
			JSON: `{"user":{"id":"` + g.User.ID + `","email":"ann@example.com"},"token":"*","refreshToken":"*","expiresIn":900}`},
		invalid("an access token is rejected", g.Token),
		invalid("an empty token is rejected", ""),
		invalid("a truncated token is rejected", target[:len(target)-4]),
		invalid("a token with padding is rejected", target+"="),
		invalid("a token with a line break is rejected", target[:20]+`\n`+target[20:]),
		invalid("a token in another alphabet is rejected", "+/"+target[2:]),
		invalid("a token with an unknown family is rejected", flip(target, 0)),
		invalid("a token of another session is rejected", flip(target, 70)),
		invalid("a token of another user is rejected", flip(target, 100)),
		invalid("a token of 10 KB is rejected", strings.Repeat("A", 10<<10)),
		bad("a database operator is rejected", `{"refreshToken":{"$gt":""}}`, endpointtest.FieldError("refreshToken", "refreshToken must be a string.")),
		bad("null is rejected", `{"refreshToken":null}`, endpointtest.FieldError("refreshToken", "refreshToken must be a string.")),
		bad("the token is required", `{"refresh_token":"x"}`, endpointtest.FieldError("refreshToken", "refreshToken is missing.")),
	)
	b.Play(t, endpointtest.HostileBodies(`{"refreshToken":"`+target+`"}`)...)
	b.Play(t, endpointtest.HostileRoutes(refresh.Function)...)
	b.Do(t, exchange(target)).Grant(t) // none of these requests changed the session
}

func TestRefresh_ExtendsSession(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function)
	g := b.Given(t, "ann@example.com", "a password")
	seen := map[string]bool{g.Token: true, g.RefreshToken: true, b.Claims(t, g.Token).ID: true}
	for range 5 {
		b.Clock.Advance(15 * 24 * time.Hour)
		next := b.Do(t, exchange(g.RefreshToken)).Grant(t)
		claims := b.Claims(t, next.Token)
		for _, s := range []string{next.Token, next.RefreshToken, claims.ID} {
			if seen[s] {
				t.Fatalf("%q was issued twice", s)
			}
			seen[s] = true
		}
		if _, err := b.Users.Session(t.Context(), claims.Subject, claims.Session, b.Clock.Now()); err != nil {
			t.Fatal(err)
		}
		g = next
	}
	b.Clock.Advance(31 * 24 * time.Hour)
	b.Play(t, invalid("a session that was not refreshed for its lifetime has expired", g.RefreshToken))
}

// A database that stalls may store the write and lose its answer. The client then retries for
// longer than ReplayWindow. It cannot present the successor, because it never received it.
func TestRefresh_LostAnswerIsRepeatedForTwoMinutes(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function)
	g := b.Given(t, "ann@example.com", "a password")
	b.Clock.Advance(time.Hour)
	first := b.Do(t, exchange(g.RefreshToken)).Grant(t)
	for passed := 0; passed < 120; passed += 15 {
		want := first
		want.ExpiresIn -= passed
		if again := b.Do(t, exchange(g.RefreshToken)).Grant(t); again != want {
			t.Fatalf("after %d s: got %+v, want %+v", passed, again, want)
		}
		b.Clock.Advance(15 * time.Second)
	}
	b.Do(t, exchange(g.RefreshToken)).Grant(t)
	b.Do(t, exchange(first.RefreshToken)).Grant(t)
}

// expiresIn counts from the time of the answer, and a token in an answer is never expired.
func TestRefresh_RepeatedAnswerNeverHoldsExpiredToken(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function, "ACCESS_TOKEN_TTL=20s")
	g := b.Given(t, "ann@example.com", "a password")
	b.Clock.Advance(time.Hour)
	first := b.Do(t, exchange(g.RefreshToken)).Grant(t)
	seen := map[string]bool{}
	for passed := 0; passed <= 115; passed += 5 {
		again := b.Do(t, exchange(g.RefreshToken)).Grant(t)
		if claims := b.Claims(t, again.Token); claims.Session != b.Session(t, first.RefreshToken) {
			t.Errorf("after %d s: the token is of another session", passed)
		}
		want := 20 - passed
		if passed >= 20 {
			want = 20 // a new token
		}
		if again.ExpiresIn != want || again.RefreshToken != first.RefreshToken {
			t.Errorf("after %d s: got %+v, want the refresh token of the first answer and %d s", passed, again, want)
		}
		seen[again.Token] = true
		b.Clock.Advance(5 * time.Second)
	}
	if len(seen) != 1+20 { // one of the first answer, and one of each repetition after its expiry
		t.Errorf("got %d different access tokens, want 21", len(seen))
	}
}

func TestRefresh_SessionEndsAtMaximumLife(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function, "SESSION_TTL=1h", "SESSION_MAX_TTL=90m")
	g := b.Given(t, "ann@example.com", "a password")
	for range 2 {
		b.Clock.Advance(44 * time.Minute)
		g = b.Do(t, exchange(g.RefreshToken)).Grant(t)
	}
	b.Clock.Advance(2 * time.Minute)
	b.Play(t, invalid("90 minutes after the sign-in", g.RefreshToken))
}

func TestRefresh_LifetimeSettings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ access, session, most, want string }{
		"a token that outlives its session":      {"2h", "1h", "", "ACCESS_TOKEN_TTL must not be longer than SESSION_TTL"},
		"a session that outlives its limit":      {"", "2h", "1h", "SESSION_TTL must not be longer than SESSION_MAX_TTL"},
		"a token as long as its session":         {"1h", "1h", "1h", ""},
		"a session shorter than a default token": {"", "1m", "", ""},
		"a session longer than a default limit":  {"", "8760h", "", ""},
		"a limit shorter than a default session": {"", "", "24h", ""},
	} {
		t.Run(name, func(t *testing.T) {
			settings := map[string]string{"ACCESS_TOKEN_TTL": c.access, "SESSION_TTL": c.session, "SESSION_MAX_TTL": c.most}
			cfg := config.New(func(name string) (string, bool) { s, ok := settings[name]; return s, ok },
				func(*slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }, time.Now)
			session.FromConfig(cfg)
			got := cfg.Err().Error() // the keys are missing as well
			if strings.Contains(got, "_TTL") != (c.want != "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Two browser tabs may hold the same token. Each gets the answer again, even after further
// refreshes of the session.
func TestRefresh_RepeatedWithinTenSeconds(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{token.EdDSA, token.ES256} {
		t.Run(algorithm, func(t *testing.T) {
			signing, verifying := keySets(t, algorithm)
			b := endpointtest.New(t, refresh.Function, "SIGNING_KEYS="+signing, "VERIFYING_KEYS="+verifying)
			token := b.Given(t, "ann@example.com", "a password").RefreshToken
			var tokens, bodies []string
			for range 5 {
				b.Clock.Advance(time.Second)
				a := b.Do(t, exchange(token))
				tokens, bodies = append(tokens, token), append(bodies, a.Body)
				token = a.Grant(t).RefreshToken
			}
			for i := range tokens {
				want := strings.Replace(bodies[i], `:900}`, fmt.Sprintf(`:%d}`, 900-(len(tokens)-1-i)), 1)
				if a := b.Do(t, exchange(tokens[i])); a.Status != http.StatusOK || a.Body != want {
					t.Errorf("token %d: got %d %s\nwant 200 %s", i+1, a.Status, a.Body, want)
				}
			}
			b.Claims(t, b.Do(t, exchange(token)).Grant(t).Token)
		})
	}
}

// keySets returns the private and the public set of a new key.
func keySets(t *testing.T, algorithm string) (signing, verifying string) {
	t.Helper()
	key, err := token.GenerateKey(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	var sets [2]string
	for i, jwk := range []token.JWK{token.NewJWK(key), token.NewJWK(key).Public()} {
		document, err := json.Marshal(token.Set{Keys: []token.JWK{jwk}})
		if err != nil {
			t.Fatal(err)
		}
		sets[i] = string(document)
	}
	return sets[0], sets[1]
}

// The claims of a token are those of the account at the refresh. A repeated answer after a change
// of the account has the new claims and another jti (RFC 7519 section 4.1.7).
func TestRefresh_Claims(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function)
	g := b.Given(t, "ann@example.com", "a password")
	signedIn := b.Clock.Now().Truncate(time.Second)
	b.Clock.Advance(time.Hour)
	want := token.Claims{
		Subject: g.User.ID, Session: b.Session(t, g.RefreshToken), Email: "ann@example.com",
		IssuedAt: b.Clock.Now().Truncate(time.Second), ExpiresAt: b.Clock.Now().Truncate(time.Second).Add(15 * time.Minute),
		ClientID: "web", AuthTime: signedIn, AMR: []string{"pwd"}, ACR: "aal1",
	}
	claims := func() token.Claims {
		t.Helper()
		return b.Claims(t, b.Do(t, exchange(g.RefreshToken)).Grant(t).Token)
	}
	first := claims()
	want.ID = first.ID
	if !reflect.DeepEqual(first, want) {
		t.Errorf("got %+v, want %+v", first, want)
	}
	if _, err := b.Collection(t).UpdateOne(t.Context(), map[string]string{"_id": g.User.ID},
		map[string]any{"$set": map[string]any{"roles": []string{"admin", "seller"}, "verifiedAt": b.Clock.Now()}}); err != nil {
		t.Fatal(err)
	}
	changed := claims()
	if changed.ID == first.ID {
		t.Errorf("got the jti %s of the token with other claims, want another", changed.ID)
	}
	want.ID, want.Roles, want.EmailVerified = changed.ID, []string{"admin", "seller"}, true
	if !reflect.DeepEqual(changed, want) {
		t.Errorf("after the change: got %+v, want %+v", changed, want)
	}
}

func TestRefresh_ReusedTokenEndsSession(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		refreshes int
		wait      time.Duration
	}{
		"the previous token, after two minutes":                {1, 2*time.Minute + time.Millisecond},
		"the token before the previous one, after ten seconds": {2, 10*time.Second + time.Millisecond},
		"the fifth token back, after ten seconds":              {5, 10*time.Second + time.Millisecond},
		"a token whose record was dropped":                     {70, 0},
		"the previous token, on the session's last day":        {1, 29 * 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := endpointtest.NewSink(t)
			b := endpointtest.New(t, refresh.Function, sink.Setting())
			stolen := b.Given(t, "ann@example.com", "a password")
			other := b.Given(t, "bob@example.com", "a password")
			g := stolen
			for range c.refreshes {
				g = b.Do(t, exchange(g.RefreshToken)).Grant(t)
			}
			b.Clock.Advance(c.wait)
			endpointtest.Check(t, invalid("", ""), b.Do(t, exchange(stolen.RefreshToken)))
			endpointtest.Check(t, invalid("", ""), b.Do(t, exchange(g.RefreshToken)))
			r, err := session.Parse(g.RefreshToken)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Users.Session(t.Context(), r.User, r.Session, b.Clock.Now()); err != user.ErrSessionEnded {
				t.Errorf("the session: got %v, want ErrSessionEnded", err)
			}
			if !strings.Contains(b.Logs(), user.ErrTokenReused.Error()) {
				t.Errorf("the log does not contain %q", user.ErrTokenReused)
			}
			received := sink.Received()
			if last := received[len(received)-1]; last.Type() != "com.ticketing.user.signedout.v1" || !strings.Contains(string(last.Data()), `"reason":"theft"`) {
				t.Errorf("got the last event %v, want signedout with the reason theft", last)
			}
			b.Do(t, exchange(other.RefreshToken)).Grant(t)
		})
	}
}

func TestRefresh_ForgedTokenEndsNothing(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function)
	g := b.Given(t, "ann@example.com", "a password")
	// the right family with another secret is theft: see TestRefresh_ReusedTokenEndsSession
	for _, at := range []int{0, 70, 100} { // family, session, user
		endpointtest.Check(t, invalid("", ""), b.Do(t, exchange(flip(g.RefreshToken, at))))
	}
	b.Do(t, exchange(g.RefreshToken)).Grant(t)
}

func TestRefresh_ParallelRequestsGetOneAnswer(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function)
	g := b.Given(t, "ann@example.com", "a password")
	answers := b.Race(t, 50, func(int) endpointtest.Call { return exchange(g.RefreshToken) })
	for _, a := range answers {
		if a.Status != http.StatusOK || a.Body != answers[0].Body {
			t.Fatalf("got %d %s\nwant 200 and the first body, %s", a.Status, a.Body, answers[0].Body)
		}
	}
	b.Do(t, exchange(answers[0].Grant(t).RefreshToken)).Grant(t)
}

func TestRefresh_ParallelSignout(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function)
	for range 10 {
		g := b.Given(t, session.NewID()+"@example.com", "a password")
		sid := b.Claims(t, g.Token).Session
		ended := make(chan error, 1)
		go func() { ended <- b.Users.End(t.Context(), g.User.ID, sid) }()
		b.Do(t, exchange(g.RefreshToken))
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		// in either order, a refresh must not restore the session
		if _, err := b.Users.Session(t.Context(), g.User.ID, sid, b.Clock.Now()); err != user.ErrSessionEnded {
			t.Fatalf("the session: got %v, want ErrSessionEnded", err)
		}
	}
}

func TestRefresh_DisabledUser(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function)
	g := b.Given(t, "ann@example.com", "a password")
	if _, err := b.Collection(t).UpdateOne(t.Context(), map[string]string{"_id": g.User.ID},
		map[string]any{"$set": map[string]any{"disabledAt": b.Clock.Now()}}); err != nil {
		t.Fatal(err)
	}
	b.Play(t, invalid("a disabled user", g.RefreshToken))
}

// flip returns a token with one character changed.
func flip(token string, at int) string {
	c := byte('A')
	if token[at] == c {
		c = 'B'
	}
	return token[:at] + string(c) + token[at+1:]
}

// An operator writes the roles. A wrong value gives no role and does not lock the user out.
func TestRefresh_UnusualRoles(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function)
	g := b.Given(t, "ann@example.com", "a password")
	many := slices.Repeat([]string{strings.Repeat("r", 64)}, 900)
	for name, c := range map[string]struct{ stored, want any }{
		"a string":        {"admin", []string(nil)},
		"a number":        {5, []string(nil)},
		"null":            {nil, []string(nil)},
		"an empty array":  {[]string{}, []string(nil)},
		"a mixed array":   {[]any{"admin", 5, "", strings.Repeat("r", 65), "seller"}, []string{"admin", "seller"}},
		"very many roles": {many, many[:32]},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := b.Collection(t).UpdateOne(t.Context(), map[string]string{"_id": g.User.ID}, map[string]any{"$set": map[string]any{"roles": c.stored}}); err != nil {
				t.Fatal(err)
			}
			g = b.Do(t, exchange(g.RefreshToken)).Grant(t)
			if got := b.Claims(t, g.Token).Roles; !reflect.DeepEqual(got, c.want) {
				t.Errorf("got the roles %q, want %q", got, c.want)
			}
		})
	}
}

// A service that reads no database must not accept a token after the end of the session.
func TestRefresh_TokenEndsWithSession(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function, "SESSION_TTL=1h", "SESSION_MAX_TTL=90m")
	g := b.Given(t, "ann@example.com", "a password")
	for range 2 {
		b.Clock.Advance(44 * time.Minute)
		g = b.Do(t, exchange(g.RefreshToken)).Grant(t)
	}
	if left := b.Claims(t, g.Token).ExpiresAt.Sub(b.Clock.Now()); g.ExpiresIn > 120 || left > 2*time.Minute {
		t.Errorf("2 minutes before the end of the session: got a token for %d s (%v), want at most 120 s", g.ExpiresIn, left)
	}
}
