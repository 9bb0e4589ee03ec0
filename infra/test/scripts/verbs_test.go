package scripts_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ticketing.com/auth/infra/local/mailbox"
)

type key struct{} // of the client in the values of a script

// A client sends the requests of a script and stores the last response.
type client struct {
	t          *testing.T
	base, host string
	response   *http.Response
	body       string
	box        *mailbox.Box // of a system without a page of its mails
	load       *load
	responses  int // of all loads that ended
	rotations  int
	began      time.Time
}

// verbs returns the commands of the scripts. Package testscript adds its own.
//
//	get|post|… PATH [BODY] [as TOKEN] [with HEADER]…   sends a request, again after 503
//	status STATUS               checks the status of the last response
//	body TEXT                   checks the whole body; … matches any text within a string
//	header NAME VALUE           checks a header; '' requires that it is absent
//	save NAME MEMBER            stores a member of the body, such as sessions.0.id, in $NAME
//	save NAME                   stores the output of the last kubectl in $NAME
//	sign-up EMAIL               creates an account with $PASSWORD for the rest of the script;
//	                            a repeated request creates no second one
//	mail EMAIL PURPOSE COUNT    finds mail number COUNT with a link of this purpose, and stores its
//	                            token in $MAIL_TOKEN and its code in $MAIL_CODE
//	until VERB ARGUMENT…        retries for up to two minutes
//	finally VERB ARGUMENT…      runs at the end, also after a failure; the last one first
//
// These commands need a cluster:
//
//	kubectl ARGUMENT…           runs kubectl in the namespace of the system
//	pods FUNCTION COUNT         checks the number of pods; 2+ means two or more
//	ready FUNCTION COUNT        checks the number of ready pods, without terminating ones
//	scaled-to-zero FUNCTION…    checks that there are no pods, except terminating ones
//	logged FUNCTION TEXT…       checks that a pod has logged a line with all these texts
//	                            since the script began
//	sigkill FUNCTION            kills the processes in the ready pods
//	redeploy FUNCTION…          creates a new revision and waits until it is ready
//	load COUNT METHOD PATH …    starts COUNT clients that repeat this request, in addition
//	                            to a running load. %n is the number of the request. After
//	                            "then" comes a second METHOD PATH; it is sent with the
//	                            token of the first response
//	responses STATUS [COUNT]    checks for at least COUNT (1) responses of the load with
//	                            this status; +COUNT counts from the last check
//	end-load STATUS…            ends the load. Every response has one of these statuses,
//	                            and one has the first. "lost" is no response. 429 and 503
//	                            need Retry-After
//	check-acknowledged METHOD PATH …   sends this for every request of the last load with a
//	                            2xx response, and expects 200
//	from-pod METHOD PATH …      sends a request from a pod, so from another address
//	send-event TYPE DATA [with HEADER]…   sends an event to the broker
//	published COUNT TEXT…       checks how many events with all these texts the listener
//	                            has received since the script began
//	deliveries COUNT TEXT…      checks for at least COUNT deliveries of such events
//	exported NAME…              checks that the collector has received as many spans with each name,
//	                            or values of a metric with it, as the loads of the script got
//	                            responses
//	sign-outs COUNT METHOD PATH …   signs COUNT users up, sends this request with the token of
//	                            each until it is not 401, signs the user out, and repeats the
//	                            request until it is 401. It logs the times after the sign-outs
//	rotate                      runs the next step of a key rotation in the Secrets, as if
//	                            its time had come. The end of the script undoes an
//	                            incomplete rotation
//
// A "!" before a verb requires that it fails.
func verbs() map[string]func(*testscript.TestScript, bool, []string) {
	all := map[string]func(*testscript.TestScript, *client, []string) error{
		"status": status, "body": body, "header": header, "save": save, "sign-up": signUp, "mail": findMail,
		"pods": countPods("pods", func(pod) bool { return false }), "ready": countPods("ready", pod.isUnavailable), "scaled-to-zero": scaledToZero,
		"kubectl": kubectl, "sigkill": sigkill, "redeploy": redeploy, "rotate": rotate, "logged": logged,
		"from-pod": fromPod, "load": startLoad, "responses": responses, "end-load": endLoad, "check-acknowledged": checkAcknowledged,
		"send-event": sendEvent, "published": published, "deliveries": deliveries, "exported": exported,
		"sign-outs": signOuts,
	}
	for _, method := range []string{"get", "head", "post", "put", "patch", "delete", "options"} {
		all[method] = func(ts *testscript.TestScript, c *client, args []string) error {
			return c.send(ts, strings.ToUpper(method), args)
		}
	}
	all["until"] = func(ts *testscript.TestScript, c *client, args []string) error {
		if len(args) == 0 || all[args[0]] == nil {
			return errors.New("usage: until VERB ARGUMENT…")
		}
		var err error
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
			began := time.Now()
			if err = all[args[0]](ts, c, args[1:]); err == nil {
				return nil
			}
			// The checks leave the CPU to what they wait for.
			time.Sleep(max(200*time.Millisecond, min(4*time.Since(began), 2*time.Second)))
		}
		return fmt.Errorf("after two minutes: %w", err)
	}
	all["finally"] = func(ts *testscript.TestScript, c *client, args []string) error {
		if len(args) == 0 || all[args[0]] == nil {
			return errors.New("usage: finally VERB ARGUMENT…")
		}
		ts.Defer(func() {
			if err := all[args[0]](ts, c, args[1:]); err != nil {
				c.t.Errorf("finally %s: %v: the change of the script is not undone", args[0], err)
			}
		})
		return nil
	}
	commands := map[string]func(*testscript.TestScript, bool, []string){}
	for name, verb := range all {
		commands[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			err := verb(ts, ts.Value(key{}).(*client), args)
			switch {
			case err != nil && !neg:
				ts.Fatalf("%v", err)
			case err == nil && neg:
				ts.Fatalf("%s %s succeeded, want a failure", name, strings.Join(args, " "))
			}
		}
	}
	return commands
}

// send sends a request. After 503 it repeats the request for up to two minutes, as a client does:
// a pod that has just started may not reach the database yet. A load does not repeat requests.
func (c *client) send(ts *testscript.TestScript, method string, args []string) error {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		r, err := c.request(method, args)
		if err != nil {
			return err
		}
		if c.response, c.body, err = do(r); err != nil {
			return err
		}
		ts.Logf("%s\n%s", c.response.Status, c.body)
		if c.response.StatusCode != http.StatusServiceUnavailable || c.response.Header.Get("Retry-After") == "" || time.Now().After(end) {
			return nil
		}
	}
}

// request returns the request that the words of a script describe.
func (c *client) request(method string, args []string) (*http.Request, error) {
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
		case args[0] == "with" && name == "Host": // net/http sends it from a field of its own
			r.Host = value
		case args[0] == "with" && ok:
			r.Header.Set(name, value)
		default:
			return nil, fmt.Errorf("got %s %q, want as TOKEN or with HEADER", args[0], args[1])
		}
	}
	return r, nil
}

// do sends a request and reads the whole response. On a busy machine a pod can take longer to
// start than a request may take. Then the activator responds with a timeout, and do sends the
// request again.
func do(r *http.Request) (*http.Response, string, error) {
	for end := time.Now().Add(2 * time.Minute); ; {
		response, body, err := doOnce(r)
		late := err == nil && response.StatusCode == http.StatusGatewayTimeout && strings.HasPrefix(body, "activator request timeout")
		if !late || time.Now().After(end) {
			return response, body, err
		}
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, "", err
			}
		}
	}
}

func doOnce(r *http.Request) (*http.Response, string, error) {
	client := &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	return response, string(all), err
}

// signUp sends an Idempotency-Key, so that a repeated request does not fail because the earlier
// one created the account.
func signUp(ts *testscript.TestScript, c *client, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: sign-up EMAIL")
	}
	sent := fmt.Sprintf(`{"email":%q,"password":%q}`, args[0], ts.Getenv("PASSWORD"))
	if err := c.send(ts, http.MethodPost, []string{"/api/users/signup", sent, "with", `Idempotency-Key: "` + args[0] + `"`}); err != nil {
		return err
	}
	return status(ts, c, []string{"201"})
}

func status(_ *testscript.TestScript, c *client, args []string) error {
	if len(args) != 1 || c.response == nil {
		return errors.New("usage: status STATUS, after a request")
	}
	if got := fmt.Sprint(c.response.StatusCode); got != args[0] {
		return fmt.Errorf("got status %s, want %s: %s", got, args[0], c.body)
	}
	return nil
}

func body(_ *testscript.TestScript, c *client, args []string) error {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.Join(args, " ")), "…", `[^"]+`)
	if !regexp.MustCompile("^" + pattern + "$").MatchString(c.body) {
		return fmt.Errorf("got the body %s, want %s", c.body, strings.Join(args, " "))
	}
	return nil
}

func header(_ *testscript.TestScript, c *client, args []string) error {
	if len(args) != 2 || c.response == nil {
		return errors.New("usage: header NAME VALUE, after a request")
	}
	if got := strings.Join(c.response.Header.Values(args[0]), ", "); got != args[1] {
		return fmt.Errorf("got %s %q, want %q", args[0], got, args[1])
	}
	return nil
}

func save(ts *testscript.TestScript, c *client, args []string) error {
	if len(args) == 1 {
		ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
		return nil
	}
	if len(args) != 2 {
		return errors.New("usage: save NAME [MEMBER]")
	}
	var value any
	if err := json.Unmarshal([]byte(c.body), &value); err != nil {
		return err
	}
	for name := range strings.SplitSeq(args[1], ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[name]
		case []any:
			i, err := strconv.Atoi(name)
			if value = nil; err == nil && i < len(v) {
				value = v[i]
			}
		default:
			value = nil
		}
	}
	if value == nil {
		return fmt.Errorf("the body has no %s: %s", args[1], c.body)
	}
	ts.Setenv(args[0], fmt.Sprint(value))
	return nil
}
