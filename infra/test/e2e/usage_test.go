package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/testing/devdb"
)

// Every command prints its usage for -h before it reads a setting. It reports an invalid
// argument in one line.
func containsAll(text string, parts []string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
}

func TestCommands_HelpAndWrongArguments(t *testing.T) {
	t.Parallel()
	workspace, outside, err := e2e.Commands()
	if err != nil || len(workspace) < 15 || len(outside) < 3 {
		t.Fatalf("got the commands %v and %v, %v; want at least 15 and 3", workspace, outside, err)
	}
	var names []string
	for _, folder := range workspace {
		names = append(names, path.Base(folder))
	}
	e2e.Build(t, names...)
	contains := map[string][]string{ // the usage, besides the name
		"infra/generate": {"new NAME"},
		"infra/local":    {"-watch"},
		"infra/keys":     {"rotate"},
		"infra/allinone": {"environment"},
	}
	for _, f := range catalog.Functions() {
		folder := "functions/" + f.Name + "/cmd/" + f.Name
		for _, e := range f.Endpoints {
			contains[folder] = append(contains[folder], e.Summary)
		}
		for _, r := range f.Receivers {
			contains[folder] = append(contains[folder], r.Summary)
		}
	}
	subcommands := map[string][]string{
		"infra/generate":          {"new"},
		"infra/keys":              {"new", "rotate", "public", "secrets"},
		"infra/cluster":           {"up", "status", "cold", "down"},
		"infra/test/e2e/listener": {"kill", "send"},
	}
	for _, folder := range append(workspace, outside...) {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			name := path.Base(folder)
			binary := command(t, folder, slices.Contains(outside, folder))
			for _, subcommand := range append([]string{""}, subcommands[folder]...) {
				words := strings.Fields(subcommand)
				for _, flag := range []string{"-h", "-help", "--help"} {
					code, stdout, stderr := output(t, binary, append(words, flag)...)
					if code != 0 || !strings.HasPrefix(stdout, "usage: ") || !strings.Contains(stdout, name) || !containsAll(stdout, contains[folder]) || stderr != "" {
						t.Errorf("%s %s %s: got exit code %d, stdout %q, stderr %q; want the usage", name, subcommand, flag, code, stdout, stderr)
					}
				}
				for _, wrong := range []string{"-nonsense", "--nonsense=mongodb://ann:hunter2@127.0.0.1", "-"} {
					code, stdout, stderr := output(t, binary, append(words, wrong, "mongodb://ann:hunter2@127.0.0.1")...)
					if code != 2 || stdout != "" || !strings.HasPrefix(stderr, strings.TrimSpace(name+" "+subcommand)+": ") ||
						strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, name+strings.TrimRight(" "+subcommand, " ")+` -h" for help`) || strings.Contains(stderr, "hunter2") {
						t.Errorf("%s %s %s: got exit code %d, stdout %q, stderr %q; want 2 and one line without the argument", name, subcommand, wrong, code, stdout, stderr)
					}
				}
			}
		})
	}
}

// command returns the path of a command's binary.
func command(t *testing.T, folder string, outside bool) string {
	t.Helper()
	switch {
	case !outside:
		return e2e.Binary(t, path.Base(folder))
	case folder == "infra/devdb":
		binary, err := devdb.Binary(t.Context(), func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		return binary
	default:
		return usageOnly(t, folder)
	}
}

// usageOnly builds a program with only the usage.go of a command of the cluster, because the
// command itself takes minutes to build. It checks that main calls parse.
func usageOnly(t *testing.T, folder string) string {
	t.Helper()
	from, dir := filepath.Join("..", "..", "..", filepath.FromSlash(folder)), t.TempDir()
	main, err := os.ReadFile(filepath.Join(from, "main.go"))
	if err != nil || !strings.Contains(string(main), "\tparse()\n") {
		t.Errorf("main.go does not call parse: %v", err)
	}
	parse, err := os.ReadFile(filepath.Join(from, "usage.go"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"usage.go": string(parse),
		"main.go":  "package main\n\nfunc main() { parse(); panic(\"parse returned\") }\n",
		"go.mod":   "module usageonly\n\ngo 1.26\n",
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	binary := filepath.Join(dir, path.Base(folder))
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// output runs a command without settings. It kills a command after thirty seconds; the exit
// code is then -1.
func output(t *testing.T, binary string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env, cmd.Dir = []string{}, t.TempDir()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run()
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestCommands_PortInUse(t *testing.T) {
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	address := "127.0.0.1:" + port
	for _, args := range [][]string{{}, {"-watch"}} {
		code, stderr := e2e.MustFail(t, e2e.Environment(), "local", append(args, "-addr", address, "-data", t.TempDir())...)
		if want := "local: " + address + " is in use: choose another address with -addr\n"; code != 1 || stderr != want {
			t.Errorf("local %v: got exit code %d, %q; want 1, %q", args, code, stderr, want)
		}
	}
	code, stderr := e2e.MustFail(t, []string{"PORT=" + port}, "bare")
	if want := fmt.Sprintf("bare: :%s is in use: choose another port with PORT\n", port); code != 1 || stderr != want {
		t.Errorf("bare: got exit code %d, %q; want 1, %q", code, stderr, want)
	}
	files, err := keyring.Ensure(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	settings := []string{"PORT=" + port, "MONGODB_URI=mongodb://127.0.0.1:1", "SIGNING_KEYS_FILE=" + files.Signing, "VERIFYING_KEYS_FILE=" + files.Verifying, "EVENTS=insecure", "K_SINK=http://127.0.0.1:1",
		"INTROSPECTION_CLIENTS=" + identity.OpenToAll, "MAIL_KEYS=" + confirmation.NewKey(), "SMTP_URL=smtp://127.0.0.1:1?tls=none",
		"MAIL_FROM=no-reply@ticketing.example", "PUBLIC_URL=https://ticketing.example"}
	names := []string{"allinone"}
	for _, f := range catalog.Functions() {
		names = append(names, f.Name)
	}
	for _, name := range names {
		code, stderr := e2e.MustFail(t, settings, name)
		if want := " cannot start:\n  port " + port + " is in use: choose another with PORT\n"; code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("%s: got exit code %d, %q; want 1, %q", name, code, stderr, want)
		}
	}
}
