package bearer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

const (
	fetchTimeout = 3 * time.Second
	retryDelay   = 5 * time.Second // after a failed request to the auth system
)

// newClient returns a client like the one of the settings, with a timeout and without redirects: a
// redirect could lead to a server that the settings do not name.
func newClient(configured *http.Client) *http.Client {
	client := &http.Client{Timeout: fetchTimeout}
	if configured != nil {
		client.Transport = configured.Transport
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client
}

// A statusError is the status of a response other than 200.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("got the status %d, want 200", int(e)) }

// send returns the header and the body of a response. The body has at most limit bytes. The error
// contains neither the URL nor the response.
func send(client *http.Client, r *http.Request, limit int64) (http.Header, []byte, error) {
	r.Header.Set("Accept", "application/json")
	response, err := client.Do(r)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL
		}
		return nil, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, nil, statusError(response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(body)) > limit {
		return nil, nil, fmt.Errorf("the response is larger than %d bytes", limit)
	}
	return response.Header, body, nil
}

// A flight is a request to the auth system in flight. Several requests may wait for it.
type flight struct {
	done chan struct{} // closed at the end
	err  error         // valid after done
}

// fly runs f in a goroutine that ends with f, and in a context that outlives the request that
// started it: another request may wait for the result.
func fly(ctx context.Context, f func(context.Context) error) *flight {
	running := &flight{done: make(chan struct{})}
	go func() {
		defer close(running.done)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
		defer cancel()
		running.err = f(ctx)
	}()
	return running
}

// wait returns the error of the flight, or the error of the context if it ends before.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// An outage logs the first failure of a series, and the success that ends the series. The lock of
// its owner protects it.
type outage struct {
	log        *slog.Logger
	start, end string
	failing    bool
	failed     time.Time // the last failure
}

// lasts reports whether the last attempt has failed a short time ago. An earlier failure says nothing about
// now.
func (o *outage) lasts(now time.Time) bool { return o.failing && now.Sub(o.failed) < outageAge }

// outageAge exceeds the pauses between two attempts.
const outageAge = time.Minute

func (o *outage) record(err error, now time.Time) {
	switch {
	case err != nil && !o.failing:
		o.log.Warn(o.start, "error", err.Error())
	case err == nil && o.failing:
		o.log.Info(o.end)
	}
	if o.failing = err != nil; o.failing {
		o.failed = now
	}
}
