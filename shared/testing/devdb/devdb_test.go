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

// eventTimeout bounds the wait for an event, on a machine that may be busy.
const eventTimeout = 20 * time.Second

// TestMain lets the test binary also run as a parent process that is killed, and as servers
// that fail.
func TestMain(m *testing.M) {
	switch os.Getenv("RUN_AS") {
	case "parent":
		server, err := Start(context.Background(), Options{})
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(server.URI() + "\n")
		select {}
	case "a server that panics":
		panic("in a test")
	case "a server that exits":
		os.Exit(0)
	case "a server that is never ready":
		select {}
	case "a server that panics later":
		os.Stdout.WriteString("mongodb://127.0.0.1:1\n")
		bufio.NewReader(os.Stdin).ReadByte() // until the test closes stdin
		os.Stderr.WriteString("panic: later\n\ngoroutine 1 [running]:\n")
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// mustStart starts a real server. Its build may take minutes.
func mustStart(t *testing.T, o Options) *Server {
	t.Helper()
	o.Progress = func(message string) { t.Log(message) }
	server, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	return server
}

func ping(t *testing.T, uri string) error {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetServerSelectionTimeout(eventTimeout))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Disconnect(context.Background())
	return client.Ping(t.Context(), nil)
}

func isDown(t *testing.T, uri string) bool {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(uri, "mongodb://"))
	if err == nil {
		conn.Close()
	}
	return err != nil
}

func isEmpty(t *testing.T, folder string) bool {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries) == 0
}

// eventually waits until a condition is true that another process changes.
func eventually(t *testing.T, name string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(eventTimeout); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: false after %v, want true", name, eventTimeout)
		}
	}
}

func TestServer_StartAndStop(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	server := mustStart(t, Options{})
	if err := ping(t, server.URI()); err != nil {
		t.Errorf("ping: %v", err)
	}
	if isEmpty(t, temp) {
		t.Error("the temporary folder is empty, want the data in it")
	}
	for range 2 {
		if err := server.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	if !isDown(t, server.URI()) {
		t.Error("the server listens after Stop, want it stopped")
	}
	if !isEmpty(t, temp) {
		t.Error("the temporary folder has data after Stop, want it empty")
	}
	select {
	case err := <-server.UnexpectedExit():
		t.Errorf("UnexpectedExit reported %v, want nothing", err)
	default:
	}
}

func TestStart_RejectedSetting(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
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

func TestStart_RelativeDataFolder(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	repository, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(repository, filepath.Join(t.TempDir(), "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	mustStart(t, Options{Data: relative})
	if isEmpty(t, relative) {
		t.Error("the folder is empty, want the data in it")
	}
}

func TestServer_UnexpectedExit(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Setenv("TMPDIR", t.TempDir()) // a killed server does not delete its temporary data
	server := mustStart(t, Options{})
	server.cmd.Process.Kill()
	select {
	case err := <-server.UnexpectedExit():
		if err.Error() != "embedded database: signal: killed" {
			t.Errorf("got %v, want signal: killed", err)
		}
	case <-time.After(eventTimeout):
		t.Errorf("UnexpectedExit reported nothing within %v, want an error", eventTimeout)
	}
	if err := server.Stop(); err == nil {
		t.Error("Stop after an unexpected exit returned nil, want an error")
	}
}

func TestServer_KillIsExpected(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Setenv("TMPDIR", t.TempDir())
	server := mustStart(t, Options{})
	server.Kill()
	if !isDown(t, server.URI()) {
		t.Error("the server listens after Kill, want it stopped")
	}
	select {
	case err := <-server.UnexpectedExit():
		t.Errorf("UnexpectedExit reported %v, want nothing", err)
	default:
	}
}

func TestServer_ParentKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	mustStart(t, Options{}).Stop() // builds the server for the parent
	temp := t.TempDir()
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), "RUN_AS=parent", "TMPDIR="+temp)
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
		t.Errorf("ping: %v", err)
	}
	parent.Process.Kill()
	parent.Wait()
	eventually(t, "the server has exited", func() bool { return isDown(t, uri) })
	eventually(t, "the temporary data is deleted", func() bool { return isEmpty(t, temp) })
}

// runAs launches this test binary as a server that fails.
func runAs(t *testing.T, ctx context.Context, kind string) (*Server, error) {
	t.Helper()
	t.Setenv("RUN_AS", kind)
	return launch(ctx, os.Args[0], nil)
}

func TestStart_FailingServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Run("a panic is no rejected setting", func(t *testing.T) {
		_, err := runAs(t, t.Context(), "a server that panics")
		if err == nil || errors.Is(err, ErrRefused) || !strings.HasPrefix(err.Error(), "exit status 2: panic: in a test") {
			t.Errorf("got %v, want exit status 2 and the panic, not ErrRefused", err)
		}
	})
	t.Run("a server that exits is not ready", func(t *testing.T) {
		if _, err := runAs(t, t.Context(), "a server that exits"); err == nil || err.Error() != "the server exited by itself" {
			t.Errorf("got %v, want that the server exited by itself", err)
		}
	})
	t.Run("the context bounds the wait for a server", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := runAs(t, ctx, "a server that is never ready"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
	})
	t.Run("a later panic is reported with its message", func(t *testing.T) {
		server, err := runAs(t, t.Context(), "a server that panics later")
		if err != nil {
			t.Fatal(err)
		}
		server.stdin.Close()
		select {
		case err := <-server.UnexpectedExit():
			if !strings.HasPrefix(err.Error(), "embedded database: exit status 2: panic: later") {
				t.Errorf("got %v, want exit status 2 and the panic", err)
			}
		case <-time.After(eventTimeout):
			t.Errorf("UnexpectedExit reported nothing within %v, want an error", eventTimeout)
		}
	})
	t.Run("a missing program does not start", func(t *testing.T) {
		if _, err := launch(t.Context(), filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want %v", err, os.ErrNotExist)
		}
	})
}
