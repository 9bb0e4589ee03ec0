package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// These tests run the real server as a separate process. The process is the test binary,
// which runs main if RUN_AS_DEVDB is set.

func TestMain(m *testing.M) {
	if os.Getenv("RUN_AS_DEVDB") != "" {
		main()
	}
	os.Exit(m.Run())
}

// A process is one run of the server.
type process struct {
	*exec.Cmd
	t      *testing.T
	temp   string // its temporary folder
	uri    string
	stdin  io.WriteCloser
	stderr strings.Builder
}

// spawn starts the server and does not wait for it.
func spawn(t *testing.T, args ...string) (*process, *bufio.Reader) {
	t.Helper()
	p := &process{t: t, temp: t.TempDir(), Cmd: exec.Command(os.Args[0], args...)}
	p.Env = append(os.Environ(), "RUN_AS_DEVDB=1", "TMPDIR="+p.temp)
	p.Stderr = &p.stderr
	stdin, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	stdout, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Kill()
		p.Wait()
	})
	return p, bufio.NewReader(stdout)
}

// start starts the server and waits until it is ready.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p, stdout := spawn(t, args...)
	line, err := stdout.ReadString('\n')
	if err != nil {
		p.Wait()
		t.Fatalf("devdb is not ready: %v\n%s", err, &p.stderr)
	}
	p.uri = strings.TrimSuffix(line, "\n")
	return p
}

// startError runs a server that must not start, and returns its error line.
func startError(t *testing.T, args ...string) string {
	t.Helper()
	p, stdout := spawn(t, args...)
	output, _ := io.ReadAll(stdout)
	if p.wait() != 2 {
		t.Errorf("got exit code %d, want 2", p.ProcessState.ExitCode())
	}
	if len(output) > 0 {
		t.Errorf("got standard output %q, want none", output)
	}
	line, rest, _ := strings.Cut(p.stderr.String(), "\n")
	if rest != "" {
		t.Errorf("got %q after the first line of standard error, want nothing", rest)
	}
	return line
}

// wait waits for the process and returns its exit code.
func (p *process) wait() int {
	p.t.Helper()
	late := time.AfterFunc(timeout, func() {
		p.t.Error("devdb does not end")
		p.Process.Kill()
	})
	defer late.Stop()
	p.Wait()
	return p.ProcessState.ExitCode()
}

func (p *process) address() string { return strings.TrimPrefix(p.uri, "mongodb://") }

func (p *process) connect(opts ...*options.ClientOptions) *mongo.Client {
	p.t.Helper()
	client, err := mongo.Connect(append([]*options.ClientOptions{options.Client().ApplyURI(p.uri)}, opts...)...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		// Disconnect sends endSessions and would wait for a server that has ended.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		client.Disconnect(ctx)
	})
	return client
}

// race runs n contenders at the same time and returns how many returned true.
func race(n int, contender func(i int) bool) int {
	var winners atomic.Int32
	var all sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-begin
			if contender(i) {
				winners.Add(1)
			}
		})
	}
	close(begin)
	all.Wait()
	return int(winners.Load())
}

func TestServer_ConcurrentWrites(t *testing.T) {
	server := start(t, "-scratch", "-addr", "127.0.0.1:0")
	// Two clients represent two processes.
	clients := []*mongo.Client{server.connect(), server.connect()}
	users := func(i int, name string) *mongo.Collection {
		return clients[i%2].Database("races").Collection(name)
	}
	ctx := t.Context()

	t.Run("100 increments are all applied", func(t *testing.T) {
		seed(t, users(0, "inc"), bson.M{"_id": 1, "n": 0})
		acknowledged := race(100, func(i int) bool {
			_, err := users(i, "inc").UpdateByID(ctx, 1, bson.M{"$inc": bson.M{"n": 1}})
			return err == nil
		})
		var got struct{ N int }
		if err := users(0, "inc").FindOne(ctx, bson.M{"_id": 1}).Decode(&got); err != nil {
			t.Fatal(err)
		}
		if acknowledged != 100 || got.N != 100 {
			t.Errorf("got %d acknowledged and a sum of %d, want 100 and 100", acknowledged, got.N)
		}
	})
	t.Run("a compare-and-set has one winner", func(t *testing.T) {
		seed(t, users(0, "cas"), bson.M{"_id": 1, "generation": 0})
		for generation := range 10 {
			winners := race(50, func(i int) bool {
				res, err := users(i, "cas").UpdateOne(ctx, bson.M{"_id": 1, "generation": generation},
					bson.M{"$set": bson.M{"generation": generation + 1, "winner": i}})
				if err != nil {
					t.Error(err)
				}
				return err == nil && res.ModifiedCount == 1
			})
			if winners != 1 {
				t.Errorf("generation %d: got %d winners, want 1", generation, winners)
			}
		}
	})
	t.Run("a find-and-modify has one winner", func(t *testing.T) {
		seed(t, users(0, "fam"), bson.M{"_id": 1, "generation": 7})
		winners := race(50, func(i int) bool {
			err := users(i, "fam").FindOneAndUpdate(ctx,
				bson.M{"_id": 1, "generation": 7}, bson.M{"$inc": bson.M{"generation": 1}}).Err()
			if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
				t.Error(err)
			}
			return err == nil
		})
		if winners != 1 {
			t.Errorf("got %d winners, want 1", winners)
		}
	})
	t.Run("a unique index accepts one insert", func(t *testing.T) {
		_, err := users(0, "unique").Indexes().CreateOne(ctx, mongo.IndexModel{
			Keys: bson.D{{Key: "email", Value: 1}}, Options: options.Index().SetUnique(true),
		})
		if err != nil {
			t.Fatal(err)
		}
		winners := race(100, func(i int) bool {
			_, err := users(i, "unique").InsertOne(ctx, bson.M{"_id": i, "email": "one@example.com"})
			if err != nil && !mongo.IsDuplicateKeyError(err) {
				t.Error(err)
			}
			return err == nil
		})
		if winners != 1 {
			t.Errorf("got %d winners, want 1", winners)
		}
	})
}

func seed(t *testing.T, c *mongo.Collection, document any) {
	t.Helper()
	if _, err := c.InsertOne(t.Context(), document); err != nil {
		t.Fatal(err)
	}
}

// FerretDB by itself replies to such a write, and the client takes the reply for that of
// its next command.
func TestServer_UnacknowledgedWriteGetsNoReply(t *testing.T) {
	server := start(t, "-scratch", "-addr", "127.0.0.1:0")
	client := server.connect(options.Client().SetMaxPoolSize(1))
	acknowledged := client.Database("test").Collection("w0")
	silent := client.Database("test").Collection("w0",
		options.Collection().SetWriteConcern(writeconcern.Unacknowledged()))
	for i := range 10 {
		if _, err := silent.InsertOne(t.Context(), bson.M{"_id": i}); err != nil {
			t.Fatal(err)
		}
		n, err := acknowledged.CountDocuments(t.Context(), bson.M{})
		if err != nil || n != int64(i+1) {
			t.Fatalf("got a count of %d (%v), want %d", n, err, i+1)
		}
	}
}

func TestServer_PartialCommandBlocksNoOtherClient(t *testing.T) {
	server := start(t, "-scratch", "-addr", "127.0.0.1:0")
	slow, err := net.Dial("tcp", server.address())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	send(t, slow, newMessage(1, 0, []byte("the rest"))[:20])
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := server.connect().Ping(ctx, nil); err != nil {
		t.Error(err)
	}
}

func TestServer_InvalidMessageClosesOnlyItsConnection(t *testing.T) {
	server := start(t, "-scratch", "-addr", "127.0.0.1:0")
	legacy := newMessage(1, 0, make([]byte, 30))
	legacy[12], legacy[13] = 0xd2, 0x07 // OP_INSERT, a request without a reply
	for name, sent := range map[string][]byte{
		"no documents":       newMessage(1, 0, nil),
		"not BSON":           newMessage(1, 0, []byte("\x00not a document")),
		"an unknown section": newMessage(1, 0, []byte("\x09")),
		"a legacy opcode":    legacy,
		"a w:0 message":      newMessage(1, moreToCome, []byte("\x09")),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.address())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(timeout))
			send(t, conn, sent)
			isClosed(t, conn)
		})
	}
	if err := server.connect().Ping(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestServer_KillLosesNoAcknowledgedInsert(t *testing.T) {
	folder := t.TempDir()
	acknowledged := 0
	for round := range 3 {
		server := start(t, "-data", folder, "-addr", "127.0.0.1:0")
		c := server.connect().Database("test").Collection("inserts")
		if n, err := c.CountDocuments(t.Context(), bson.M{}); err != nil || n < int64(acknowledged) {
			t.Fatalf("got %d documents (%v), want at least the %d acknowledged ones", n, err, acknowledged)
		}
		enough := make(chan struct{})
		running, exited := context.WithCancel(t.Context())
		go func() { // it kills the server between inserts
			<-enough
			server.Process.Kill()
			server.Wait()
			exited()
		}()
		for i := 0; ; i++ {
			if i == 50 {
				close(enough)
			}
			if _, err := c.InsertOne(running, bson.M{"_id": fmt.Sprint(round, " ", i)}); err != nil && i < 50 {
				t.Fatal(err)
			} else if err != nil {
				break
			}
			acknowledged++
		}
		<-running.Done()
	}
	server := start(t, "-data", folder, "-addr", "127.0.0.1:0")
	c := server.connect().Database("test").Collection("inserts")
	if n, err := c.CountDocuments(t.Context(), bson.M{}); err != nil || n < int64(acknowledged) {
		t.Fatalf("got %d documents (%v), want at least the %d acknowledged ones", n, err, acknowledged)
	}
	server.Process.Kill()
	server.Wait()
	var output string
	if err := openFiles(t, folder)["test"].QueryRow("PRAGMA integrity_check").Scan(&output); err != nil || output != "ok" {
		t.Errorf("integrity check: got %s (%v), want ok", output, err)
	}
}

func TestServer_InvalidSettings(t *testing.T) {
	folder := t.TempDir()
	server := start(t, "-data", folder, "-addr", "127.0.0.1:0")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"the folder is in use":         {[]string{"-data", folder, "-addr", "127.0.0.1:0"}, "data folder " + folder + ": another server is using it"},
		"the address is in use":        {[]string{"-data", t.TempDir(), "-addr", server.address()}, server.address() + " is already in use: choose another address with -addr"},
		"the folder is a file":         {[]string{"-data", file, "-addr", "127.0.0.1:0"}, "data folder " + file + ": not a directory"},
		"the folder cannot be created": {[]string{"-data", "/dev/null/data", "-addr", "127.0.0.1:0"}, "data folder /dev/null/data: not a directory"},
		"every interface":              {[]string{"-scratch", "-addr", ":0"}, `-addr ":0" is not a loopback address: there is no authentication, so it must stay on this machine`},
		"an address of the network":    {[]string{"-scratch", "-addr", "192.0.2.1:0"}, `-addr "192.0.2.1:0" is not a loopback address: there is no authentication, so it must stay on this machine`},
		"no address":                   {[]string{"-scratch", "-addr", "27017"}, `-addr "27017" is not a host:port: address 27017: missing port in address`},
		"scratch with data":            {[]string{"-scratch", "-data", folder}, "-scratch deletes its data at the end: do not combine it with -data"},
		"an unknown flag":              {[]string{"-port", "1"}, `flag provided but not defined: -port: run "devdb -h" for help`},
		"an argument":                  {[]string{"start"}, `unexpected argument: run "devdb -h" for help`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := startError(t, c.args...); got != "devdb: "+c.want {
				t.Errorf("got error %s\nwant      devdb: %s", got, c.want)
			}
		})
	}
	if os.Getuid() != 0 { // root may write to every folder
		t.Run("the folder is not writable", func(t *testing.T) {
			readOnly := t.TempDir()
			if err := os.Chmod(readOnly, 0o500); err != nil {
				t.Fatal(err)
			}
			want := "devdb: data folder " + readOnly + ": permission denied"
			if got := startError(t, "-data", readOnly, "-addr", "127.0.0.1:0"); got != want {
				t.Errorf("got error %s\nwant      %s", got, want)
			}
		})
	}
}

// A pod listens on its own address, and only the flag -exposed allows that.
func TestServer_Exposed(t *testing.T) {
	server := start(t, "-scratch", "-exposed", "-addr", "0.0.0.0:0")
	if err := server.connect().Ping(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// The folder's name becomes part of a URI and precedes a socket's path, so it needs
// escaping and may be too long.
func TestServer_AnyFolderName(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "100% ü?&#", strings.Repeat("long", 50))
	server := start(t, "-data", folder, "-addr", "[::1]:0")
	seed(t, server.connect().Database("test").Collection("c"), bson.M{"_id": 1})
	info, err := os.Stat(folder)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("got folder mode %v, want 0700", info.Mode())
	}
	if _, err := os.Stat(filepath.Join(folder, "test.sqlite")); err != nil {
		t.Error(err)
	}
}

func TestServer_Stop(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		stop func(*process)
	}{
		"when standard input ends": {[]string{"-until-stdin-closes"}, func(p *process) { p.stdin.Close() }},
		"on SIGTERM":               {nil, func(p *process) { p.Process.Signal(syscall.SIGTERM) }},
		"on SIGTERM as a child":    {[]string{"-until-stdin-closes"}, func(p *process) { p.Process.Signal(syscall.SIGTERM) }},
		"on SIGINT":                {nil, func(p *process) { p.Process.Signal(syscall.SIGINT) }},
		"not on SIGINT or SIGHUP as a child": {[]string{"-until-stdin-closes"}, func(p *process) {
			p.Process.Signal(syscall.SIGINT)
			p.Process.Signal(syscall.SIGHUP)
			if err := p.connect().Ping(context.Background(), nil); err != nil {
				t.Error(err)
			}
			p.stdin.Close()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			server := start(t, append(c.args, "-scratch", "-addr", "127.0.0.1:0")...)
			seed(t, server.connect().Database("test").Collection("c"), bson.M{"_id": 1})
			if left, err := filepath.Glob(filepath.Join(server.temp, "*", "test.sqlite")); err != nil || len(left) != 1 {
				t.Errorf("got data files %v (%v) while the server runs, want one", left, err)
			}
			c.stop(server)
			if code := server.wait(); code != 0 {
				t.Errorf("got exit code %d, want 0\n%s", code, &server.stderr)
			}
			if server.stderr.Len() > 0 {
				t.Errorf("got standard error %s, want none", &server.stderr)
			}
			if left, err := os.ReadDir(server.temp); err != nil || len(left) > 0 {
				t.Errorf("got %v (%v) in the temporary folder after the stop, want nothing", left, err)
			}
		})
	}
}

func TestServer_Help(t *testing.T) {
	p, stdout := spawn(t, "-help")
	output, _ := io.ReadAll(stdout)
	if code := p.wait(); code != 0 || !strings.Contains(string(output), "-until-stdin-closes") {
		t.Errorf("got exit code %d and %q, want 0 and the usage", code, output)
	}
}
