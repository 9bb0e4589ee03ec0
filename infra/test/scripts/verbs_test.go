package scripts_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

type key struct{} // under which a script has its caller

// A caller sends a script's requests and remembers the last answer.
type caller struct {
	t          *testing.T
	base, host string
	answer     *http.Response
	body       string
	load       *load
	rotations  int
	began      time.Time
}

// What a script may say, beside what package testscript lets it say:
//
//	get|post|… PATH [BODY] [as TOKEN] [with HEADER]…   sends a request
//	answer STATUS               of the last request
//	body TEXT                   the whole body; … stands for anything within a string
//	header NAME VALUE           '' if there must be none
//	keep NAME MEMBER            puts a member of the body, such as user.id, into $NAME
//	keep NAME                   puts the output of the last kubectl there
//	until VERB ARGUMENT…        tries again, for up to two minutes
//	finally VERB ARGUMENT…      at the end, also after a failure; the last of them first
//
// and, of a cluster,
//
//	kubectl ARGUMENT…           in the system's namespace
//	pods FUNCTION COUNT         as many pods of a function are there; 2+ is two or more
//	serving FUNCTION COUNT      as many are ready, and not on their way out
//	asleep FUNCTION…            these have none, but on their way out
//	logged FUNCTION TEXT…       since the script began a pod of a function has logged a
//	                            line with all these texts
//	sigkill FUNCTION            kills what runs in the pods that serve it
//	renew FUNCTION…             gives each a new revision, and waits for it
//	load COUNT METHOD PATH …    so many callers send this request again and again from
//	                            now on, beside those of a load that has not ended; %n in
//	                            it is the request's number; after "then" comes a second
//	                            METHOD PATH, sent with the token of the first answer
//	met STATUS [COUNT]          at least COUNT (1) of them have been answered this; +COUNT
//	                            is so many since the last met
//	elsewhere METHOD PATH …     sends a request from a pod, so from another address
//	loaded STATUS…              ends that. Every answer was one of these, the first
//	                            among them; "lost" is no answer. 429 and 503 said
//	                            when to come back
//	acknowledged METHOD PATH …  sends this for the number of every request of the last
//	                            load that was done (2xx), and is answered 200
//	event TYPE DATA [with HEADER]…   sends an event to the broker
//	told COUNT TEXT…            since the script began the broker's listener was told so
//	                            many events that have all these texts in them
//	heard COUNT TEXT…           and such events came so many times, or more often
//	rotate                      the next step of a rotation of the keys, in the Secrets,
//	                            as if the time for it had come; one that was not
//	                            finished is undone at the end
//
// A "!" before a verb says that it must fail.
func verbs() map[string]func(*testscript.TestScript, bool, []string) {
	all := map[string]func(*testscript.TestScript, *caller, []string) error{
		"answer": answer, "body": body, "header": header, "keep": keep,
		"pods": counting("pods", func(pod) bool { return false }), "serving": counting("serving", pod.isAway), "asleep": asleep,
		"kubectl": kubectl, "sigkill": sigkill, "renew": renew, "rotate": rotate, "logged": logged,
		"elsewhere": elsewhere, "load": startLoad, "met": met, "loaded": loaded, "acknowledged": acknowledged,
		"event": event, "told": told, "heard": heard,
	}
	for _, method := range []string{"get", "head", "post", "put", "patch", "delete", "options"} {
		all[method] = func(ts *testscript.TestScript, c *caller, args []string) error {
			return c.send(ts, strings.ToUpper(method), args)
		}
	}
	all["until"] = func(ts *testscript.TestScript, c *caller, args []string) error {
		if len(args) == 0 || all[args[0]] == nil {
			return errors.New("usage: until VERB ARGUMENT…")
		}
		var err error
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			if err = all[args[0]](ts, c, args[1:]); err == nil {
				return nil
			}
		}
		return fmt.Errorf("two minutes have passed: %w", err)
	}
	all["finally"] = func(ts *testscript.TestScript, c *caller, args []string) error {
		if len(args) == 0 || all[args[0]] == nil {
			return errors.New("usage: finally VERB ARGUMENT…")
		}
		ts.Defer(func() {
			if err := all[args[0]](ts, c, args[1:]); err != nil {
				c.t.Errorf("finally %s: %v: what was changed for a script is not undone", args[0], err)
			}
		})
		return nil
	}
	commands := map[string]func(*testscript.TestScript, bool, []string){}
	for name, verb := range all {
		commands[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			err := verb(ts, ts.Value(key{}).(*caller), args)
			switch {
			case err != nil && !neg:
				ts.Fatalf("%v", err)
			case err == nil && neg:
				ts.Fatalf("%s %s must fail", name, strings.Join(args, " "))
			}
		}
	}
	return commands
}

func (c *caller) send(ts *testscript.TestScript, method string, args []string) error {
	r, err := c.request(method, args)
	if err != nil {
		return err
	}
	if c.answer, c.body, err = do(r); err != nil {
		return err
	}
	ts.Logf("%s\n%s", c.answer.Status, c.body)
	return nil
}

// request makes a request of a script's words.
func (c *caller) request(method string, args []string) (*http.Request, error) {
	if len(args) == 0 {
		return nil, errors.New("usage: METHOD PATH [BODY] [as TOKEN] [with HEADER]…")
	}
	path, args := args[0], args[1:]
	var sent io.Reader
	if len(args)%2 == 1 {
		sent, args = strings.NewReader(args[0]), args[1:]
	}
	r, err := http.NewRequest(method, c.base+path, sent)
	if err != nil {
		return nil, err
	}
	r.Host = c.host
	if sent != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for ; len(args) > 0; args = args[2:] {
		switch name, value, ok := strings.Cut(args[1], ": "); {
		case args[0] == "as":
			r.Header.Add("Authorization", "Bearer "+args[1])
		case args[0] == "with" && name == "Host": // which is no header to package http
			r.Host = value
		case args[0] == "with" && ok:
			r.Header.Set(name, value)
		default:
			return nil, fmt.Errorf("%s %s: what is that?", args[0], args[1])
		}
	}
	return r, nil
}

// do sends a request and reads the whole answer. On a busy machine a pod can take longer to
// start than a request may take. Then the activator says so, and do sends the request again.
func do(r *http.Request) (*http.Response, string, error) {
	for end := time.Now().Add(2 * time.Minute); ; {
		answer, body, err := once(r)
		late := err == nil && answer.StatusCode == http.StatusGatewayTimeout && strings.HasPrefix(body, "activator request timeout")
		if !late || time.Now().After(end) {
			return answer, body, err
		}
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, "", err
			}
		}
	}
}

func once(r *http.Request) (*http.Response, string, error) {
	client := &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	return answer, string(all), err
}

func answer(_ *testscript.TestScript, c *caller, args []string) error {
	if len(args) != 1 || c.answer == nil {
		return errors.New("usage: answer STATUS, after a request")
	}
	if got := fmt.Sprint(c.answer.StatusCode); got != args[0] {
		return fmt.Errorf("the answer is %s", got)
	}
	return nil
}

func body(_ *testscript.TestScript, c *caller, args []string) error {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.Join(args, " ")), "…", `[^"]+`)
	if !regexp.MustCompile("^" + pattern + "$").MatchString(c.body) {
		return fmt.Errorf("the body is %s", c.body)
	}
	return nil
}

func header(_ *testscript.TestScript, c *caller, args []string) error {
	if len(args) != 2 || c.answer == nil {
		return errors.New("usage: header NAME VALUE, after a request")
	}
	if got := strings.Join(c.answer.Header.Values(args[0]), ", "); got != args[1] {
		return fmt.Errorf("%s is %q", args[0], got)
	}
	return nil
}

func keep(ts *testscript.TestScript, c *caller, args []string) error {
	if len(args) == 1 {
		ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
		return nil
	}
	if len(args) != 2 {
		return errors.New("usage: keep NAME [MEMBER]")
	}
	var value any
	if err := json.Unmarshal([]byte(c.body), &value); err != nil {
		return err
	}
	for name := range strings.SplitSeq(args[1], ".") {
		members, _ := value.(map[string]any)
		value = members[name]
	}
	if value == nil {
		return fmt.Errorf("there is no %s in %s", args[1], c.body)
	}
	ts.Setenv(args[0], fmt.Sprint(value))
	return nil
}
