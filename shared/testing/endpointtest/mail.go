package endpointtest

import (
	"encoding/json"
	"slices"
	"testing"

	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
)

// EverySink runs a test as EveryTransport does, each time with a new sink for the events.
func EverySink(t *testing.T, function endpoint.Function, play func(*testing.T, *Fixture, *Sink), settings ...string) {
	t.Helper()
	everyTransport(t, func(t *testing.T, use func(*Fixture)) {
		s := NewSink(t)
		f := New(t, function, slices.Concat(settings, []string{s.Setting()})...)
		use(f)
		play(t, f, s)
	})
}

// Reset forgets the events so far.
func (s *Sink) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received, s.headers = nil, nil
}

// A Mail is a requested mail with the token and the code that function mail would send.
type Mail struct {
	event.RequestedMail
	Token, Code string
}

// Mails returns the mails with a purpose that the function has requested from the sink, in order.
func (f *Fixture) Mails(t testing.TB, s *Sink, purpose event.Purpose) (mails []Mail) {
	t.Helper()
	for _, e := range s.Received() {
		var m Mail
		if e.Type() != event.MailRequested.Name {
			continue
		}
		if err := json.Unmarshal(e.Data(), &m.RequestedMail); err != nil {
			t.Fatal(err)
		}
		if m.Purpose != purpose {
			continue
		}
		subject := confirmation.Subject{User: m.UserID, Purpose: m.Purpose, Nonce: m.Nonce, Expires: m.ExpiresAt, Email: m.To}
		keys := confirmation.FromConfig(f.cfg)
		m.Token, m.Code = keys.Token(subject), keys.Code(subject)
		mails = append(mails, m)
	}
	return mails
}

// Mail returns the last of Mails. It fails the test if there is none.
func (f *Fixture) Mail(t testing.TB, s *Sink, purpose event.Purpose) Mail {
	t.Helper()
	all := f.Mails(t, s, purpose)
	if len(all) == 0 {
		t.Fatalf("no mail with the purpose %s was requested", purpose)
	}
	return all[len(all)-1]
}
