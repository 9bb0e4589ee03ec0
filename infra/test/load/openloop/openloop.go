// Package openloop sends requests at a rate, without waiting for earlier responses. So a slow system
// receives as many requests as a fast one. A client that waits for each response would send fewer
// requests in an overload, and hide it.
package openloop

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// MaxInFlight bounds the requests in flight, and so the connections.
const MaxInFlight = 4000

// A Response is the result of one request.
type Response struct {
	Status int           // 0 without a response
	At     time.Duration // of the request, since the first one
	Took   time.Duration
	Error  string // the message of the error; "" if the response has none
	Retry  string // its Retry-After
}

// A Result has the results of a run.
type Result struct {
	Duration  time.Duration // of sending
	Responses []Response
	Unsent    int // requests beyond MaxInFlight
}

// Send sends a number of requests per second for a time, and waits for the responses.
func Send(request func() (*http.Request, error), rate float64, duration time.Duration) Result {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: MaxInFlight, MaxConnsPerHost: MaxInFlight}}
	defer client.CloseIdleConnections()
	result := Result{Duration: duration}
	var mu sync.Mutex
	var group sync.WaitGroup
	slots := make(chan struct{}, MaxInFlight)
	began := time.Now()
	for n := 0; ; n++ {
		at := time.Duration(float64(n) / rate * float64(time.Second))
		if at >= duration {
			break
		}
		time.Sleep(time.Until(began.Add(at)))
		select {
		case slots <- struct{}{}:
		default:
			result.Unsent++
			continue
		}
		group.Go(func() {
			defer func() { <-slots }()
			sent := time.Now()
			r := send(client, request)
			r.At, r.Took = sent.Sub(began), time.Since(sent)
			mu.Lock()
			defer mu.Unlock()
			result.Responses = append(result.Responses, r)
		})
	}
	group.Wait()
	return result
}

func send(client *http.Client, request func() (*http.Request, error)) (r Response) {
	sent, err := request()
	if err != nil {
		return r
	}
	response, err := client.Do(sent)
	if err != nil {
		return r
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return r
	}
	r = Response{Status: response.StatusCode, Retry: response.Header.Get("Retry-After")}
	if _, message, is := strings.Cut(string(body), `{"errors":[{"message":"`); is {
		r.Error, _, _ = strings.Cut(message, `"`)
	}
	return r
}

// Count returns the number of responses with one of these statuses.
func (r Result) Count(statuses ...int) (n int) {
	for _, response := range r.Responses {
		if slices.Contains(statuses, response.Status) {
			n++
		}
	}
	return n
}

// Rate returns the responses per second with one of these statuses. It counts only those that arrived
// while requests were sent.
func (r Result) Rate(statuses ...int) float64 {
	n := 0
	for _, response := range r.Responses {
		if slices.Contains(statuses, response.Status) && response.At+response.Took <= r.Duration {
			n++
		}
	}
	return float64(n) / r.Duration.Seconds()
}

// Quantile returns a quantile of the times of the responses with one of these statuses, or 0 without
// such a response.
func (r Result) Quantile(q float64, statuses ...int) time.Duration {
	var times []time.Duration
	for _, response := range r.Responses {
		if slices.Contains(statuses, response.Status) {
			times = append(times, response.Took)
		}
	}
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(int(q*float64(len(times))), len(times)-1)]
}

// FirstRefusal returns the first response that is no success, and whether there is one.
func (r Result) FirstRefusal() (first Response, found bool) {
	for _, response := range r.Responses {
		if response.Status/100 != 2 && (!found || response.At+response.Took < first.At+first.Took) {
			first, found = response, true
		}
	}
	return first, found
}

// LongestRefusal returns the time of the slowest response that is no success, or 0 without one.
func (r Result) LongestRefusal() (longest time.Duration) {
	for _, response := range r.Responses {
		if response.Status/100 != 2 {
			longest = max(longest, response.Took)
		}
	}
	return longest
}
