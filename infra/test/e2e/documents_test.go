package e2e_test

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"ticketing.com/auth/infra/test/e2e"
)

// Each test runs the console blocks of a page and compares their output with the page. An
// ellipsis in the page stands for any text.

func TestDocuments_LocalRunnerCommands(t *testing.T) {
	t.Parallel()
	// Each page has a runner of its own, because they sign up the same users and read the same feed.
	for _, page := range []string{"README.md", "infra/docs/api.md", "infra/docs/account.md", "infra/docs/events.md", "infra/docs/rate-limits.md"} {
		t.Run(page, func(t *testing.T) {
			at, interrupt := e2e.StartLocal(t, filepath.Join(t.TempDir(), "data"))
			defer interrupt()
			commands, want := console(t, page)
			compare(t, strings.ReplaceAll(commands, "http://127.0.0.1:8080", at), want, t.TempDir())
		})
	}
}

// The page starts a service beside the local runner, in Go and in Node.js. Both give the same
// answers.
func TestDocuments_AddService(t *testing.T) {
	const page, address = "infra/docs/add-a-service.md", "http://127.0.0.1:"
	text, err := os.ReadFile(filepath.Join(repository, page))
	if err != nil {
		t.Fatal(err)
	}
	started := regexp.MustCompile(`(?m)^    (cd infra/examples/tickets && GOWORK=off go run \./dev )(.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(started) != 2 {
		t.Fatalf("%s starts %d services, want 2", page, len(started))
	}
	for _, start := range started {
		t.Run(start[2], func(t *testing.T) {
			if _, err := os.Stat(filepath.Join(repository, "infra/examples/tickets-node/node_modules")); err != nil && strings.Contains(start[2], "npm") {
				t.Skip("run npm ci in infra/examples/tickets-node")
			}
			data := filepath.Join(t.TempDir(), "data")
			auth, interrupt := e2e.StartLocal(t, data)
			defer interrupt()
			port := startService(t, start[1]+"-data "+data+" "+start[2])
			commands, want := console(t, page)
			commands = strings.NewReplacer(address+"8080", auth, address+"8081", address+port).Replace(commands)
			compare(t, commands, want, t.TempDir())
		})
	}
}

// The page has the source of a service. Its commands run against this service.
func TestDocuments_VerifyTokensGo(t *testing.T) {
	// Not parallel: freePort returns a port that another process could take.
	const page, address = "infra/docs/verify-tokens-go.md", "http://127.0.0.1:"
	text, err := os.ReadFile(filepath.Join(repository, page))
	if err != nil {
		t.Fatal(err)
	}
	source := regexp.MustCompile("(?ms)^```go\n(package main\n.*?)^```$").FindSubmatch(text)
	start := regexp.MustCompile(`(?m)^    PORT=8082 (.*) go run \.$`).FindSubmatch(text)
	if source == nil || start == nil {
		t.Fatalf("%s has no program, or no command that starts it", page)
	}
	auth, interrupt := e2e.StartLocal(t, filepath.Join(t.TempDir(), "data"))
	defer interrupt()
	module, err := filepath.Abs(filepath.Join(repository, "shared/bearer"))
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "main.go"), source[1], 0o600); err != nil {
		t.Fatal(err)
	}
	compare(t, "export GOWORK=off GOFLAGS=-mod=mod; { go mod init example.com/shop && go mod edit -require=ticketing.com/auth/shared/bearer@v0.0.0 -replace=ticketing.com/auth/shared/bearer="+
		module+" && go mod tidy && go build -o shop .; } >build.log 2>&1 || { cat build.log; false; }", "", folder)
	port := freePort(t)
	service := exec.Command("bash", "-c", strings.ReplaceAll(string(start[1]), address+"8080", auth)+" exec ./shop")
	service.Dir, service.Env = folder, e2e.Environment("PORT="+port)
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		service.Process.Kill()
		service.Wait()
	}()
	commands, want := console(t, page)
	commands = "until curl -s -o /dev/null " + address + port + "; do sleep 0.1; done\n" + strings.NewReplacer(address+"8080", auth, address+"8082", address+port).Replace(commands)
	compare(t, commands, want, t.TempDir())
}

// freePort returns a port that no process listens on.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

// startService runs a command in the repository until the end of the test, and returns the port
// that its log names.
func startService(t *testing.T, command string) (port string) {
	t.Helper()
	cmd := exec.Command("bash", "-c", command)
	cmd.Dir, cmd.Env = repository, e2e.Environment("PORT=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		cmd.Wait()
		io.Copy(io.Discard, out) // until the last process of the group has ended
		out.Close()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := regexp.MustCompile(`"msg":"listening","port":(\d+)`).FindStringSubmatch(lines.Text()); m != nil {
			go io.Copy(io.Discard, out)
			return m[1]
		}
		t.Log(lines.Text())
	}
	t.Fatalf("%s ended before it listened", command)
	return ""
}

func TestDocuments_RepositoryCommands(t *testing.T) {
	for _, page := range []string{"infra/docs/architecture.md", "infra/docs/configuration.md", "infra/docs/development.md"} {
		t.Run(page, func(t *testing.T) {
			commands, want := console(t, page)
			compare(t, commands+"true\n", want, repository)
		})
	}
}

const repository = "../../.."

// compare runs commands in a folder, without settings, and compares their output.
func compare(t *testing.T, commands, want, folder string) {
	t.Helper()
	for _, tool := range []string{"bash", "curl", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the documents use %s, and it is not installed", tool)
		}
	}
	cmd := exec.Command("bash", "-c", commands)
	cmd.Dir = folder
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "MONGODB_URI=") })
	got, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("a command failed: %v: %s", err, got)
	}
	without := func(s string) string { return strings.TrimSpace(regexp.MustCompile(`\n+`).ReplaceAllString(s, "\n")) }
	pattern := strings.ReplaceAll(regexp.QuoteMeta(without(want)), "…", `[^"\n]+`)
	if !regexp.MustCompile("^" + pattern + "$").MatchString(without(string(got))) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// console returns the commands of the console blocks of a page, and all that they print.
func console(t *testing.T, page string) (commands, output string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```console\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Fatalf("%s has no console block", page)
	}
	for _, block := range blocks {
		for line := range strings.Lines(block[1]) {
			if command, isCommand := strings.CutPrefix(line, "$ "); isCommand {
				commands += command
			} else {
				output += line
			}
		}
	}
	return commands, output
}
