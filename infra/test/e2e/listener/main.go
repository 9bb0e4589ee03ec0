// Listener is the event receiver of the end-to-end scripts, and the server of their mails. It accepts
// every event and prints its attributes and its data as one line of JSON. It prints every mail too.
// It runs in the cluster beside the functions
// (see the overlay e2e), and the scripts read its log.
//
// The scripts also need three more commands inside the cluster. "listener kill CONTAINER" sends
// SIGKILL to the processes of a container, from a pod that sees the processes of its node.
// "listener send REQUEST" sends a request from a pod, as a client with another address, and
// prints the response. "listener collect" is an OpenTelemetry collector, and prints what it receives.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"ticketing.com/auth/infra/local/mailbox"
	"ticketing.com/auth/shared/usage"
)

const text = `usage: listener
       listener collect
       listener kill CONTAINER
       listener send REQUEST

Accepts events on port 8080 and mails on port 1025, and prints each as one line of JSON. "kill" sends SIGKILL to
the processes of a container of the node. "send" sends the request that REQUEST describes
in JSON, and prints the response as JSON. "collect" accepts OTLP in JSON on port 4318, and prints
the numbers of spans and of metric values by their names.
`

func main() {
	help := usage.Command{Call: "listener", Text: text, Stdout: os.Stdout, Stderr: os.Stderr}
	args, flags := os.Args[1:], new(flag.FlagSet)
	var do func(operand string) error
	if len(args) > 0 {
		do = map[string]func(string) error{"kill": kill, "send": send, "collect": collect}[args[0]]
	}
	operands := 0
	if do != nil {
		if help.Call += " " + args[0]; args[0] != "collect" {
			operands = 1
		}
		args = args[1:]
	}
	if code, end := help.Parse(flags, args, operands); end {
		os.Exit(code)
	}
	if do != nil {
		if err := do(flags.Arg(0)); err != nil {
			log.Fatal(err)
		}
		return
	}
	var output sync.Mutex // one line at a time
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	_, err := mailbox.Start(":1025", func(m mailbox.Mail) {
		output.Lock()
		defer output.Unlock()
		out.Encode(map[string]mailbox.Mail{"mail": m})
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		event := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			if attribute, is := strings.CutPrefix(strings.ToLower(name), "ce-"); is {
				event[attribute] = r.Header.Get(name)
			}
		}
		if json.Valid(data) {
			event["data"] = json.RawMessage(data)
		}
		output.Lock()
		defer output.Unlock()
		out.Encode(event)
	})))
}

// kill kills the processes of a container. The name of their cgroup contains the container's
// id.
func kill(container string) error {
	if len(container) < 12 {
		return fmt.Errorf("%q is too short for the id of a container", container)
	}
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return err
	}
	killed := 0
	for _, path := range groups {
		group, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(group), container) {
			continue // the process has exited or belongs to another container
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return err
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			return err
		}
		killed++
	}
	if killed == 0 {
		return fmt.Errorf("container %s has no processes on this node", container)
	}
	return nil
}

// send sends a request that is described in JSON, and prints the response as JSON.
func send(request string) error {
	var described struct {
		Method, URL, Host, Body string
		Header                  http.Header
	}
	if err := json.Unmarshal([]byte(request), &described); err != nil {
		return err
	}
	r, err := http.NewRequest(described.Method, described.URL, strings.NewReader(described.Body))
	if err != nil {
		return err
	}
	r.Host, r.Header = described.Host, described.Header
	answer, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"status": answer.StatusCode, "header": answer.Header, "body": string(body)})
}
