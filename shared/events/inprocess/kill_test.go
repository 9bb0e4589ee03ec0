package inprocess_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/outbox"
	"ticketing.com/auth/shared/httpserver"
)

// killed is set in a child process that dies as soon as its receiver gets an event.
const killed = "TEST_INPROCESS_KILLED"

// child is set in all child processes.
const child = "TEST_INPROCESS_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) == "" {
		os.Exit(m.Run())
	}
	k := &taker{answer: func(_ context.Context, _ *outbox.Outbox, in payload) error {
		if os.Getenv(killed) != "" {
			self, _ := os.FindProcess(os.Getpid())
			self.Kill()
			select {}
		}
		fmt.Fprintln(os.Stderr, "accepted", in.Text)
		return nil
	}}
	os.Exit(httpserver.Run(context.Background(), os.LookupEnv, os.Stderr, func(*config.Config) []endpoint.Function {
		return []endpoint.Function{publisher("changes", changed), k.taking(changed), relay}
	}))
}

// startChild starts a process on the database of p. It returns its URL and its log lines. The
// channel is closed at the exit of the process.
func startChild(t *testing.T, uri string, settings ...string) (url string, lines <-chan string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(settings, child+"=1", "PORT=0", "MONGODB_URI="+uri)
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	all := make(chan string, 1000)
	go func() {
		defer close(all)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			all <- s.Text()
		}
	}()
	for line := range all {
		if m := regexp.MustCompile(`"msg":"listening".*"port":(\d+)`).FindStringSubmatch(line); m != nil {
			return "http://127.0.0.1:" + m[1], all
		}
	}
	t.Fatal("the process does not listen")
	return "", nil
}

func post(t *testing.T, url string) {
	t.Helper()
	response, err := http.Post(url, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
}

// The event of a process that was killed during its delivery reaches the receiver of the next
// process.
func TestSink_ProcessKilled(t *testing.T) {
	t.Parallel()
	p := start(t, true, nil) // prepares the collection
	url, lines := startChild(t, p.uri, killed+"=1")
	post(t, url+"/changes/ann")
	for range lines { // until the process is dead
	}
	all := p.stored(t, "ann")
	if len(all) != 1 {
		t.Fatalf("got the stored events %v, want one", all)
	}
	things, err := p.outbox.Collection(t.Context())
	for id := range all { // the event is too old to be in flight
		old := time.Now().Add(-time.Minute)
		set := bson.D{{Key: "events." + id + ".time", Value: old}, {Key: "undelivered", Value: old}}
		if err == nil {
			_, err = things.UpdateOne(t.Context(), bson.D{{Key: "_id", Value: "ann"}}, bson.D{{Key: "$set", Value: set}})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	url, lines = startChild(t, p.uri)
	post(t, url+"/nowhere")
	for deadline := time.After(20 * time.Second); ; {
		select {
		case line := <-lines:
			if line == "accepted ann" {
				await(t, false, "the event is removed", func() bool { return len(p.stored(t, "ann")) == 0 })
				return
			}
		case <-deadline:
			t.Fatal("the event was not delivered within 20 s")
		}
	}
}
