package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

// TestMemory_Connections opens as many connections as a function accepts, and more. Each
// sends the most expensive kind of request and holds back the rest. The function stays
// within its GOMEMLIMIT, nine tenths of its container, and still answers afterwards.
func TestMemory_Connections(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux reports the peak memory of a process here")
	}
	env := start(t, mongotest.URI(t)).env
	const (
		request = "POST /api/users/refresh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 16000\r\n"
		event   = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/cloudevents+json\r\nContent-Length: 65000\r\n"
	)
	for name, c := range map[string]struct {
		function string
		clients  int
		sent     string
	}{
		// a proxy forwards complete headers only, and at most containerConcurrency requests at a time
		"thousands of header lines": {"refresh", 100, request + shortLines(10<<10) + "\r\n"},
		"a hundred header lines":    {"refresh", 1000, request + shortLines(500) + "\r\n"},
		"one long header line":      {"refresh", 1000, request + "X: " + strings.Repeat("x", 15<<10)},
		"a long URI":                {"refresh", 1000, "POST /" + strings.Repeat("%41", 5<<10) + " HTTP/1.1\r\n"},
		"a body without its end":    {"refresh", 1000, request + "X: " + strings.Repeat("x", 15<<10) + "\r\n\r\n" + `{"refreshToken":"` + strings.Repeat("x", 15<<10)},
		"an event without its end":  {"signout", 1000, event + "X: " + strings.Repeat("x", 15<<10) + "\r\n\r\n" + `{"data":"` + strings.Repeat("x", 64<<10)},
		"an event with many values": {"signout", 1000, event + "\r\n" + `{"data":[` + strings.Repeat("{},", 65000/3)},
	} {
		t.Run(name, func(t *testing.T) {
			p := e2e.Start(t, c.function, append(env[c.function], "GOMEMLIMIT=57MiB", "EVENTS=on")...)
			disconnect := connectAll(t, p.URL, c.clients, c.sent)
			disconnect()
			status, _, body, err := e2e.Call(t.Context(), http.MethodPost, p.URL+"/api/users/"+c.function, "", `{"refreshToken":"unknown"}`)
			if err != nil || status != http.StatusUnauthorized {
				t.Fatalf("refresh after the connections: got %d %s %v, want 401", status, body, err)
			}
			if peak := p.PeakMemory(t) >> 20; peak > 57 {
				t.Errorf("peak memory %d MiB, want at most 57", peak)
			}
		})
	}
}

// The largest hashes that can be imported verify within the memory of the shipped manifests:
// 230 MiB for Go, 256 MiB for the container. A sign-in with a hash that does not fit a smaller
// limit gets 503.
func TestMemory_ImportedHashes(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux reports the peak memory of a process here")
	}
	uri := mongotest.URI(t)
	env := start(t, uri).env["signin"]
	imported := map[string]string{ // argon2(1) with Django's parameters, Python's hashlib.scrypt
		"django":       "$argon2id$v=19$m=102400,t=2,p=8$MDEyMzQ1Njc4OWFiY2RlZjAxMjNhYg$pK9xdEAkIiELtT1bUsEkCo/QwAdCfZx0F4XJMRXMDwo",
		"scrypt64mib":  "$scrypt$ln=16,r=8,p=1$TmFDbCBvZiBzaXh0ZWVuIQ$UnSTIi0YhaqB9/xHA2Rhp3yEdmb3oyQAVBGJnBTMcAU",
		"scrypt128mib": "$scrypt$ln=17,r=8,p=1$TmFDbCBvZiBzaXh0ZWVuIQ$mb0XHAZImMmBGxvNJXWrUhKTK5AqhVRBhkN/Wh2Be/8",
	}
	insert(t, uri, imported)
	signIn := func(p *e2e.Process, user string) (int, http.Header) {
		t.Helper()
		// without a time limit: on a busy machine a hash of 128 MiB takes seconds
		answer, err := http.Post(p.URL+"/api/users/signin", "application/json",
			strings.NewReader(fmt.Sprintf(`{"email":"%s@example.com","password":"correct horse battery staple"}`, user)))
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		answer.Body.Close()
		return answer.StatusCode, answer.Header
	}

	small := e2e.Start(t, "signin", append(env, "GOMEMLIMIT=57MiB", "GOMAXPROCS=1")...)
	for user := range imported {
		if status, header := signIn(small, user); status != http.StatusServiceUnavailable || header.Get("Retry-After") != "60" {
			t.Errorf("%s in 57 MiB: got %d, Retry-After %q; want 503, 60", user, status, header.Get("Retry-After"))
		}
	}
	small.Signal(syscall.SIGTERM)
	for user := range imported {
		if !strings.Contains(small.Logs(), `"user":"`+user+`"`) {
			t.Errorf("the log does not name the user %s: %s", user, small.Logs())
		}
	}

	shipped := e2e.Start(t, "signin", append(env, "GOMEMLIMIT=230MiB", "GOMAXPROCS=1")...)
	for range 2 { // the garbage of one hash must leave memory for the next
		for user := range imported {
			if status, _ := signIn(shipped, user); status != http.StatusOK {
				t.Errorf("%s: got %d, want 200", user, status)
			}
		}
	}
	var group sync.WaitGroup
	for range 3 {
		for user := range imported {
			group.Go(func() {
				if status, _ := signIn(shipped, user); status != http.StatusOK && status != http.StatusServiceUnavailable {
					t.Errorf("%s, nine at the same time: got %d, want 200 or 503", user, status)
				}
			})
		}
	}
	group.Wait()
	// The limit is that of the container: the peak includes the pages of the binary, but GOMEMLIMIT
	// does not.
	peak := shipped.PeakMemory(t)
	if t.Logf("peak memory %d MiB", peak>>20); peak > 256<<20 {
		t.Errorf("peak memory %d bytes, want at most 256 MiB", peak)
	}
}

// insert imports users. The keys of hashes are their ids and the local parts of their emails.
func insert(t *testing.T, uri string, hashes map[string]string) {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Disconnect(t.Context())
	parsed, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	users := client.Database(strings.Trim(parsed.Path, "/")).Collection("users")
	for name, hash := range hashes {
		if _, err := users.InsertOne(t.Context(), bson.D{{Key: "_id", Value: name}, {Key: "email", Value: name + "@example.com"}, {Key: "password", Value: hash}}); err != nil {
			t.Fatal(err)
		}
	}
}

// shortLines returns header lines of a total length, as many as possible.
func shortLines(length int) string {
	var b strings.Builder
	for n := 0x100; b.Len() < length; n++ {
		fmt.Fprintf(&b, "%x:\n", n)
	}
	return b.String()[:length]
}

// connectAll opens connections that each send the same bytes. The returned function
// closes them.
func connectAll(t *testing.T, url string, clients int, sent string) (disconnect func()) {
	t.Helper()
	var group sync.WaitGroup
	open := make(chan net.Conn, clients)
	for range clients {
		group.Go(func() {
			c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Error(err)
				return
			}
			c.SetDeadline(time.Now().Add(10 * time.Second))
			io.WriteString(c, sent) // the server closes some connections before it has read all
			open <- c
		})
	}
	group.Wait()
	close(open)
	return func() {
		for c := range open {
			c.Close()
		}
	}
}
