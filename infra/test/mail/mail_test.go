package mail_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/testing/smtptest"
)

// mailers are processes of the function mail that a test can kill and start again.
type mailers struct {
	settings []string

	mu        sync.Mutex
	processes []*e2e.Process
	logs      strings.Builder // of the processes that were killed
}

func startMailers(t *testing.T, n int, uri string, server *smtptest.Server) (m *mailers, keys string) {
	t.Helper()
	keys = confirmation.NewKey()
	m = &mailers{settings: append(server.Settings(), "MONGODB_URI="+uri, "EVENTS=on", "MAIL_KEYS="+keys,
		"MAIL_FROM=no-reply@tickets.example", "PUBLIC_URL=https://tickets.example", "LOG_LEVEL=debug")}
	for range n {
		m.processes = append(m.processes, e2e.Start(t, "mail", m.settings...))
	}
	return m, keys
}

func (m *mailers) url(i int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.processes[i].URL
}

// kill kills a process and starts another one in its place.
func (m *mailers) kill(t *testing.T, i int) {
	m.mu.Lock()
	killed := m.processes[i]
	m.mu.Unlock()
	killed.Signal(os.Kill)
	next := e2e.Start(t, "mail", m.settings...)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logs.WriteString(killed.Logs())
	m.processes[i] = next
}

// allLogs returns the logs of all processes, also of those that were killed.
func (m *mailers) allLogs() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.logs.String()
	for _, p := range m.processes {
		all += p.Logs()
	}
	return all
}

// deliver delivers an event to a process as a broker does, until the process accepts it.
func (m *mailers) deliver(ctx context.Context, i int, id, data string) error {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url(i)+"/", strings.NewReader(data))
		if err != nil {
			return err
		}
		for name, value := range map[string]string{"Content-Type": "application/json", "Ce-Specversion": "1.0", "Ce-Id": id,
			"Ce-Source": event.Source, "Ce-Type": event.MailRequested.Name} {
			r.Header.Set(name, value)
		}
		response, err := client.Do(r)
		if err == nil {
			response.Body.Close()
			switch response.StatusCode {
			case http.StatusOK:
				return nil
			case http.StatusServiceUnavailable:
			default:
				return fmt.Errorf("event %s: got the status %d, want 200 or 503", id, response.StatusCode)
			}
		}
		select {
		case <-time.After(wait/2 + rand.N(wait)):
		case <-ctx.Done():
			return fmt.Errorf("event %s: %w", id, ctx.Err())
		}
	}
}

// Each event is delivered three times, to three processes at the same time. They are killed at
// random. Each mail is sent, and each kill repeats at most one.
func TestMail_SIGKILL(t *testing.T) {
	t.Parallel()
	events, kills := 300, 10
	if testing.Short() {
		events, kills = 60, 3
	}
	const processes = 3
	server := smtptest.Start(t, smtptest.Options{})
	server.Require("sender", "smtp-password")
	m, keys := startMailers(t, processes, mongotest.SlowURI(t), server)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()

	type delivery struct{ event, process int }
	queue := make(chan delivery)
	var group, killing sync.WaitGroup
	now := time.Now().UTC()
	for range 4 * processes {
		group.Go(func() {
			for d := range queue {
				data, err := json.Marshal(event.RequestedMail{UserID: fmt.Sprintf("user-%d", d.event), To: fmt.Sprintf("u%d@example.com", d.event),
					Template: event.Recovery, Purpose: event.Recovery, Nonce: "N0NCE", ExpiresAt: now.Add(time.Hour).Truncate(time.Second), At: now})
				if err == nil {
					err = m.deliver(ctx, d.process, fmt.Sprintf("event-%d", d.event), string(data))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	killing.Go(func() {
		for i := range kills {
			for at := (i+1)*events/(kills+2) + rand.N(events/(kills+2)); len(server.Mails()) < at && ctx.Err() == nil; {
				time.Sleep(time.Millisecond)
			}
			m.kill(t, rand.N(processes))
		}
	})
	for i := range events {
		for p := range processes {
			queue <- delivery{i, p}
		}
	}
	close(queue)
	group.Wait()
	killing.Wait()

	mails := map[string]int{}
	ids := map[string]string{}
	for _, sent := range server.Mails() {
		mails[sent.To]++
		id := sent.Header.Get("Message-Id")
		if ids[sent.To] != "" && ids[sent.To] != id {
			t.Errorf("a repeated mail has the id %s, want %s", id, ids[sent.To])
		}
		ids[sent.To] = id
	}
	if len(mails) != events {
		t.Errorf("%d recipients have a mail, want %d", len(mails), events)
	}
	if total := len(server.Mails()); total > events+kills {
		t.Errorf("got %d mails, want at most %d and one for each of %d kills", total, events, kills)
	}
	t.Logf("%d events, each delivered %d times, %d kills: %d mails", events, processes, kills, len(server.Mails()))
	logs := m.allLogs()
	for _, secret := range []string{keys, "smtp-password", "@example.com", "N0NCE"} {
		if strings.Contains(logs, secret) {
			t.Errorf("a log line has %q", secret)
		}
	}
	if !strings.Contains(logs, "mail sent") {
		t.Errorf("the logs of the processes have no mail:\n%.1000s", logs)
	}
}

// While a mail server hangs, the events wait at the broker. All mails arrive when it answers again.
func TestMail_ServerHangsAndReturns(t *testing.T) {
	t.Parallel()
	server := smtptest.Start(t, smtptest.Options{})
	const events = 10
	var mu sync.Mutex
	hanging, held := true, 0
	server.Behave(smtptest.Behavior{Connect: func() error {
		mu.Lock()
		hangs := hanging
		if hangs {
			held++
		}
		mu.Unlock()
		if hangs {
			server.Hang()
		}
		return nil
	}})
	m, _ := startMailers(t, 1, mongotest.SlowURI(t), server)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var group sync.WaitGroup
	now := time.Now().UTC()
	for i := range events {
		group.Go(func() {
			data, _ := json.Marshal(event.RequestedMail{UserID: "user", To: fmt.Sprintf("u%d@example.com", i), Template: event.NewDevice, Purpose: event.NewDevice, At: now})
			if err := m.deliver(ctx, 0, fmt.Sprint(i), string(data)); err != nil {
				t.Error(err)
			}
		})
	}
	for waiting := 0; waiting < events && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		mu.Lock()
		if waiting = held; waiting >= events {
			hanging = false
		}
		mu.Unlock()
	}
	if n := len(server.Mails()); n != 0 {
		t.Errorf("a server that hangs has accepted %d mails, want 0", n)
	}
	group.Wait()
	if n := len(server.Mails()); n != events {
		t.Errorf("got %d mails, want %d", n, events)
	}
}
