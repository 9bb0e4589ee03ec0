package sender_test

import (
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/sender"
)

func sampleEvent() event.Event {
	return event.Event{ID: event.NewID(), Type: event.SignedUp.Name, Source: event.Source, Subject: "u1", Time: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC),
		Trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Data: event.UserSignedUp{UserID: "u1", Email: "ann@example.com", SessionID: "s1"}}
}

func TestSend(t *testing.T) {
	var got *http.Request
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	token := filepath.Join(t.TempDir(), "token")
	c := sender.Config{
		URL:       server.URL + "/ns/broker",
		Overrides: `{"extensions":{"tenant":"blau grün","sequence":"7"}}`,
		CACerts:   string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
		TokenFile: token,
		Timeout:   time.Second,
	}
	s, err := sender.New(c)
	if err != nil {
		t.Fatal(err)
	}
	e := sampleEvent()
	if err := s.Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if got.URL.Path != "/ns/broker" || got.Header.Get("Authorization") != "" {
		t.Errorf("got %s %v, want /ns/broker without Authorization", got.URL, got.Header)
	}
	for name, want := range map[string]string{
		"Ce-Specversion": "1.0", "Ce-Id": e.ID, "Ce-Source": "/api/users", "Ce-Type": "com.ticketing.user.signedup.v1", "Ce-Subject": "u1",
		"Ce-Dataschema": "tag:ticketing.com,2026:/schemas/com.ticketing.user.signedup.v1.json",
		"Ce-Time":       "2026-01-02T03:04:05.006Z", "Ce-Partitionkey": "u1", "Ce-Tenant": "blau%20gr%C3%BCn", "Ce-Sequence": "7", "Ce-Traceparent": e.Trace,
		"Traceparent": e.Trace, "Content-Type": "application/json",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s: got %q, want %q", name, got.Header.Get(name), want)
		}
	}
	for _, renewed := range []string{"first", "second"} { // the cluster renews the file
		if err := os.WriteFile(token, []byte(renewed+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Send(t.Context(), e); err != nil || got.Header.Get("Authorization") != "Bearer "+renewed {
			t.Errorf("got %v %v, want the token %s", err, got.Header, renewed)
		}
	}
	c.CACerts = ""
	s, _ = sender.New(c)
	if err := s.Send(t.Context(), e); err == nil {
		t.Error("a certificate of an unknown authority: Send returns no error")
	}
}

func TestSend_DoesNotFollowRedirects(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the target of the redirect received the event")
	}))
	defer target.Close()
	server := httptest.NewServer(http.RedirectHandler(target.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	s, err := sender.New(sender.Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), sampleEvent()); err == nil {
		t.Error("a redirect: Send returns no error")
	}
}

// An invalid setting must fail the start even before K_SINK is set.
func TestFromConfig_ValidatesSettingsWithoutSink(t *testing.T) {
	for setting, valid := range map[string]bool{
		`K_CE_OVERRIDES={"extensions":{"tenant":"blue"}}`:    true,
		`K_CE_OVERRIDES={"extensions":["secret"]}`:           false,
		`K_CE_OVERRIDES={"extensions":{"a-b":"secret"}}`:     false,
		`K_CE_OVERRIDES={"extensions":{"type":"secret"}}`:    false,
		`K_CE_OVERRIDES={"extensions":{"source":"/ s"}}`:     false,
		`K_CE_OVERRIDES={"extensions":{"dataschema":"x:y"}}`: false,
		`K_CE_OVERRIDES=secret`:                              false,
		`K_CA_CERTS=secret`:                                  false,
		`K_SINK_TIMEOUT=secret`:                              false,
	} {
		for _, address := range []string{"", "http://sink"} {
			name, value, _ := strings.Cut(setting, "=")
			settings := map[string]string{name: value, "K_SINK": address}
			cfg := config.New(func(name string) (string, bool) { s, is := settings[name]; return s, is },
				func(*slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }, time.Now)
			s := sender.FromConfig(cfg)
			err := cfg.Err()
			if valid && (err != nil || (s != nil) != (address != "")) {
				t.Errorf("%s, K_SINK=%s: got error %v and sink %v, want no error", setting, address, err, s)
			}
			if !valid && (err == nil || !strings.HasPrefix(err.Error(), name+" ") || strings.Contains(err.Error(), "secret")) {
				t.Errorf("%s, K_SINK=%s: got error %v, want one about %s without the value", setting, address, err, name)
			}
		}
	}
}

func TestNew_InvalidConfig(t *testing.T) {
	for name, c := range map[string]sender.Config{
		"K_SINK":                               {URL: "broker.ns.svc"},
		"K_CE_OVERRIDES":                       {URL: "http://sink", Overrides: `{"extensions":["secret"]}`},
		"K_CE_OVERRIDES has a name":            {URL: "http://sink", Overrides: `{"extensions":{"Not-Allowed":"secret"}}`},
		"K_CE_OVERRIDES has a name or a value": {URL: "http://sink", Overrides: `{"extensions":{"tenant":"secret\n"}}`},
		"K_CE_OVERRIDES does not":              {URL: "http://sink", Overrides: `{"extensions":{"type":"secret"}}`},
		"K_CA_CERTS":                           {URL: "http://sink", CACerts: "secret"},
	} {
		if _, err := sender.New(c); err == nil || !strings.HasPrefix(err.Error(), name) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got error %v, want one that starts with %q, without the value", err, name)
		}
	}
}
