// Command load sends requests to a deployment at a growing rate, until fewer than half of them succeed
// during a step. It prints the responses of each step and the first refusal. See infra/docs/capacity.md.
package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ticketing.com/auth/infra/test/load/openloop"
	"ticketing.com/auth/shared/usage"
)

const (
	call = "go run ./infra/test/load"
	text = `usage: ` + call + ` [flags]

  -url URL            the deployment (http://127.0.0.1:8080)
  -host name          the Host header, if it differs from the URL
  -operation name     currentuser or signin (signin)
  -accounts n         the accounts to sign up first (100)
  -from n             the requests per second of the first step (10)
  -to n               the requests per second of the last step, if no overload ends the run before (10000)
  -step duration      the duration of a step (10s)

Each step sends half as many requests again, until fewer than half of them succeed. The accounts stay in the database.
Set RATE_LIMIT=accounts at the functions: otherwise the limit of a client address ends the run.
`
)

// growth is the ratio of the rates of two steps.
const growth = 1.5

type options struct {
	url, host, operation string
	accounts             int
	from, to             float64
	step                 time.Duration
}

func main() {
	flags, o := new(flag.FlagSet), options{}
	flags.StringVar(&o.url, "url", "http://127.0.0.1:8080", "")
	flags.StringVar(&o.host, "host", "", "")
	flags.StringVar(&o.operation, "operation", "signin", "")
	flags.IntVar(&o.accounts, "accounts", 100, "")
	flags.Float64Var(&o.from, "from", 10, "")
	flags.Float64Var(&o.to, "to", 10_000, "")
	flags.DurationVar(&o.step, "step", 10*time.Second, "")
	help := usage.Command{Call: call, Text: text, Stdout: os.Stdout, Stderr: os.Stderr}
	if code, end := help.Parse(flags, os.Args[1:], 0); end {
		os.Exit(code)
	}
	if problem := o.problem(); problem != "" {
		os.Exit(help.Error(problem))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// problem returns the problem with the options, or "".
func (o *options) problem() string {
	u, err := url.Parse(o.url)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return "-url must be an http or https URL"
	case o.operation != "signin" && o.operation != "currentuser":
		return "-operation must be currentuser or signin"
	case o.accounts < 1 || o.from <= 0 || o.to < o.from || o.step <= 0:
		return "-accounts, -from and -step must be positive, and -to at least -from"
	}
	o.url = strings.TrimRight(o.url, "/")
	return ""
}

func run(ctx context.Context, o options, out io.Writer) error {
	accounts, err := signUp(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d accounts exist. Each line is a step of %v.\n\n", len(accounts), o.step)
	fmt.Fprintln(out, "offered/s    200/s    429    503  other  unsent      p50      p99  longest refusal")
	first, unsent := "", 0
	for rate := o.from; rate <= o.to && ctx.Err() == nil; rate *= growth {
		result := openloop.Send(func() (*http.Request, error) {
			return o.request(ctx, accounts[mathrand.IntN(len(accounts))])
		}, rate, o.step)
		limited, busy := result.Count(http.StatusTooManyRequests), result.Count(http.StatusServiceUnavailable)
		fmt.Fprintf(out, "%9.0f %8.1f %6d %6d %6d %7d %8s %8s %16s\n", rate, result.Rate(http.StatusOK), limited, busy,
			len(result.Responses)-result.Count(http.StatusOK)-limited-busy, result.Unsent, ms(result.Quantile(0.5, http.StatusOK)), ms(result.Quantile(0.99, http.StatusOK)),
			ms(result.LongestRefusal()))
		if r, refused := result.FirstRefusal(); refused && first == "" && ctx.Err() == nil {
			first = fmt.Sprintf("at %.0f requests per second, %s into the step, %s after its request: %s", rate, seconds(r.At+r.Took), ms(r.Took), describe(r))
		}
		unsent += result.Unsent
		if result.Rate(http.StatusOK) < rate/2 {
			break
		}
	}
	fmt.Fprintf(out, "\nFirst refusal: %s\n", cmp.Or(first, "none"))
	if unsent > 0 {
		fmt.Fprintf(out, "%d requests were not sent, because %d were in flight.\n", unsent, openloop.MaxInFlight)
	}
	return context.Cause(ctx)
}

// describe returns the text of a refusal. Only a function answers with the message of
// an API error.
func describe(r openloop.Response) string {
	switch {
	case r.Status == 0:
		return "no response"
	case r.Error == "":
		return fmt.Sprintf("status %d of a proxy", r.Status)
	case r.Retry != "":
		return fmt.Sprintf("status %d of the function with Retry-After: %s, %q", r.Status, r.Retry, r.Error)
	}
	return fmt.Sprintf("status %d of the function, %q", r.Status, r.Error)
}

func ms(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f ms", float64(d.Microseconds())/1e3)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// An account is a user of the load test.
type account struct{ credentials, token string }

// maxTries bounds the repetitions of a sign-up that receives 503.
const maxTries = 20

// signUp creates the accounts, one after another. It repeats a sign-up that receives 503.
func signUp(ctx context.Context, o options) (all []account, err error) {
	client := &http.Client{Timeout: time.Minute}
	name := strings.ToLower(rand.Text())
	for i := range o.accounts {
		a := account{credentials: fmt.Sprintf(`{"email":"load-%s-%d@example.com","password":"correct horse battery staple"}`, name, i)}
		for try := 0; a.token == ""; try++ {
			if try == maxTries {
				return nil, fmt.Errorf("sign up account %d: got status 503 %d times", i+1, maxTries)
			}
			if a.token, err = o.signUp(ctx, client, a.credentials); err != nil {
				return nil, fmt.Errorf("sign up account %d: %w", i+1, err)
			}
		}
		all = append(all, a)
	}
	return all, nil
}

// signUp creates an account and returns its access token. It waits and returns "" if the sign-up must be
// repeated.
func (o *options) signUp(ctx context.Context, client *http.Client, credentials string) (token string, err error) {
	r, err := o.newRequest(ctx, http.MethodPost, "signup", credentials)
	if err != nil {
		return "", err
	}
	response, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	switch response.StatusCode {
	case http.StatusCreated:
		var grant struct {
			Token string `json:"token"`
		}
		err := json.Unmarshal(body, &grant)
		if err == nil && grant.Token == "" {
			err = errors.New("the response has no token")
		}
		return grant.Token, err
	case http.StatusTooManyRequests:
		return "", errors.New("got status 429: a rate limit applies; set RATE_LIMIT=accounts at the functions for the time of the test (infra/docs/capacity.md)")
	case http.StatusServiceUnavailable:
		wait, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		select {
		case <-time.After(time.Duration(max(wait, 1)) * time.Second):
			return "", nil
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	return "", fmt.Errorf("got status %d, want 201: %s", response.StatusCode, bytes.TrimSpace(body[:min(len(body), 200)]))
}

// request returns a request of the operation.
func (o *options) request(ctx context.Context, a account) (*http.Request, error) {
	if o.operation == "signin" {
		return o.newRequest(ctx, http.MethodPost, "signin", a.credentials)
	}
	r, err := o.newRequest(ctx, http.MethodGet, "currentuser", "")
	if err == nil {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	return r, err
}

func (o *options) newRequest(ctx context.Context, method, name, body string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, o.url+"/api/users/"+name, strings.NewReader(body))
	if err == nil {
		r.Header.Set("Content-Type", "application/json")
		r.Host = o.host
	}
	return r, err
}
