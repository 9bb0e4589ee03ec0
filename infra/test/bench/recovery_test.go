package bench_test

import (
	"cmp"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/confirmation"
)

// BenchmarkRecovery compares the response times of recovery requests for known and unknown emails. AUC
// is the probability that a request for a known email takes longer: 0.5 means that the time reveals
// nothing. "next" is the AUC of the request that follows on the same connection, which the work after
// the response could delay. Run it with -benchtime=300x: the standard error is then 0.024.
func BenchmarkRecovery(b *testing.B) {
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	b.Cleanup(sink.Close)
	s := start(b, "K_SINK="+sink.URL, "MAIL_KEYS="+confirmation.NewKey())
	const users = 100 // each admits three mails an hour; the embedded database reads all of them in each search
	s.populate(b, users)
	send := func(email string) time.Duration {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.url+"/api/users/recovery", strings.NewReader(`{"email":"`+email+`"}`))
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		for {
			began := time.Now()
			response, err := http.DefaultClient.Do(r.Clone(b.Context()))
			took := time.Since(began)
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
			switch response.StatusCode {
			case http.StatusAccepted:
				return took
			case http.StatusServiceUnavailable: // too many requests are in flight
				time.Sleep(time.Second)
				r.Body, _ = r.GetBody()
			default:
				b.Fatalf("got %d, want 202", response.StatusCode)
			}
		}
	}
	var first, next [2][]time.Duration // of unknown and known emails
	for n := 0; b.Loop(); n++ {
		emails := []string{fmt.Sprintf("x%d@example.com", n%users), fmt.Sprintf("u%d@example.com", n%users)}
		for _, known := range mathrand.Perm(2) {
			first[known] = append(first[known], send(emails[known]))
			next[known] = append(next[known], send("unknown@example.com"))
			time.Sleep(50 * time.Millisecond) // in which the work after the response usually ends
		}
	}
	b.ReportMetric(auc(first[1], first[0]), "AUC")
	b.ReportMetric(auc(next[1], next[0]), "AUC-next")
	b.ReportMetric(float64(len(first[0])), "pairs")
}

// auc returns the probability that a time of x is longer than one of y. Equal times count half.
func auc(x, y []time.Duration) float64 {
	slices.Sort(y)
	sum := 0.0
	for _, t := range x {
		low, _ := slices.BinarySearch(y, t)
		high, _ := slices.BinarySearchFunc(y, t, func(v, t time.Duration) int { return cmp.Or(cmp.Compare(v, t), -1) })
		sum += float64(low+high) / 2
	}
	return sum / float64(len(x)*len(y))
}
