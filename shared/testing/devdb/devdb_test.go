package devdb

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// soon bounds what should happen at once, on a machine that may be busy.
const soon = 20 * time.Second

// TestMain lets the test binary also play the parent that is killed, and
// servers that misbehave.
func TestMain(m *testing.M) {
	switch os.Getenv("PLAY") {
	case "parent":
		server, err := Start(context.Background(), Options{})
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(server.URI() + "\n")
		select {}
	case "a server that panics":
		panic("on the boards")
	case "a server that leaves":
		os.Exit(0)
	case "a server that is never ready":
		select {}
	case "a server that dies later":
		os.Stdout.WriteString("mongodb://127.0.0.1:1\n")
		bufio.NewReader(os.Stdin).ReadByte() // until the test closes it
		os.Stderr.WriteString("panic: later\n\ngoroutine 1 [running]:\n")
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// mustStart starts a real server. Building it may take minutes.
func mustStart(t *testing.T, o Options) *Server {
	t.Helper()
	o.Progress = func(sentence string) { t.Log(sentence) }
	server, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	return server
}

func ping(t *testing.T, uri string) error {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetServerSelectionTimeout(soon))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Disconnect(context.Background())
	return client.Ping(t.Context(), nil)
}

func isGone(t *testing.T, uri string) bool {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(uri, "mongodb://"))
	if err == nil {
		conn.Close()
	}
	return err != nil
}

func emptied(t *testing.T, folder string) bool {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries) == 0
}

// eventually waits for what another process does in its own time.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !happened(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", soon, what)
		}
	}
}

func TestStartServeStop(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	server := mustStart(t, Options{})
	if err := ping(t, server.URI()); err != nil {
		t.Error(err)
	}
	if emptied(t, temp) {
		t.Error("the scratch data is not in the temporary folder")
	}
	for range 2 {
		if err := server.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	if !isGone(t, server.URI()) {
		t.Error("it still listens after Stop")
	}
	if !emptied(t, temp) {
		t.Error("the scratch data is left behind")
	}
	select {
	case err := <-server.UnexpectedExit():
		t.Errorf("it is said to have died: %v", err)
	default:
	}
}

func TestARefusalIsOneSentence(t *testing.T) {
	data := t.TempDir()
	server := mustStart(t, Options{Data: data})
	addr := strings.TrimPrefix(server.URI(), "mongodb://")
	for name, c := range map[string]struct {
		options Options
		want    string
	}{
		"the folder is in use": {Options{Data: data}, "embedded database: data folder " + data + ": another server is using it"},
		"the address is taken": {Options{Addr: addr}, "embedded database: " + addr + " is already in use: choose another address with -addr"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Start(t.Context(), c.options)
			if !errors.Is(err, ErrRefused) || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestARelativeFolderIsThatOfTheWorkingDirectory(t *testing.T) {
	repository, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(repository, filepath.Join(t.TempDir(), "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	mustStart(t, Options{Data: relative})
	if emptied(t, relative) {
		t.Error("nothing is kept there")
	}
}

func TestADeathIsNoticed(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // killed, it leaves its scratch data
	server := mustStart(t, Options{})
	server.cmd.Process.Kill()
	select {
	case err := <-server.UnexpectedExit():
		if err.Error() != "embedded database: signal: killed" {
			t.Error(err)
		}
	case <-time.After(soon):
		t.Error("nobody noticed")
	}
	if err := server.Stop(); err == nil {
		t.Error("Stop has nothing to say about it")
	}
}

func TestAKillIsNoDeathByItself(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	server := mustStart(t, Options{})
	server.Kill()
	if !isGone(t, server.URI()) {
		t.Error("it still listens")
	}
	select {
	case err := <-server.UnexpectedExit():
		t.Errorf("it is said to have died: %v", err)
	default:
	}
}

func TestTheServerDoesNotOutliveAKilledParent(t *testing.T) {
	mustStart(t, Options{}).Stop() // built, so that the parent need not
	temp := t.TempDir()
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), "PLAY=parent", "TMPDIR="+temp)
	parent.Stderr = os.Stderr
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	uri, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	uri = strings.TrimSpace(uri)
	if err := ping(t, uri); err != nil {
		t.Error(err)
	}
	parent.Process.Kill()
	parent.Wait()
	eventually(t, "the server ends", func() bool { return isGone(t, uri) })
	eventually(t, "its scratch data is deleted", func() bool { return emptied(t, temp) })
}

// play launches this test binary as a server that misbehaves.
func play(t *testing.T, ctx context.Context, part string) (*Server, error) {
	t.Helper()
	t.Setenv("PLAY", part)
	return launch(ctx, os.Args[0], nil)
}

func TestServersThatMisbehave(t *testing.T) {
	t.Run("one that panics has not refused", func(t *testing.T) {
		_, err := play(t, t.Context(), "a server that panics")
		if err == nil || errors.Is(err, ErrRefused) || !strings.HasPrefix(err.Error(), "exit status 2: panic: on the boards") {
			t.Error(err)
		}
	})
	t.Run("one that leaves is not ready", func(t *testing.T) {
		if _, err := play(t, t.Context(), "a server that leaves"); err == nil || err.Error() != "it ended by itself" {
			t.Error(err)
		}
	})
	t.Run("one that is never ready is not waited for", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := play(t, ctx, "a server that is never ready"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	t.Run("one that dies later says why", func(t *testing.T) {
		server, err := play(t, t.Context(), "a server that dies later")
		if err != nil {
			t.Fatal(err)
		}
		server.stdin.Close()
		select {
		case err := <-server.UnexpectedExit():
			if !strings.HasPrefix(err.Error(), "embedded database: exit status 2: panic: later") {
				t.Error(err)
			}
		case <-time.After(soon):
			t.Error("nobody noticed")
		}
	})
	t.Run("one that is not there cannot start", func(t *testing.T) {
		if _, err := launch(t.Context(), filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}
