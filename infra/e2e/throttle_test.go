package e2e_test

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"ticketing.com/auth/infra/e2e"
	"ticketing.com/auth/shared/mongotest"
)

// What is counted is in the database: another process knows of it, and one that was
// scaled to zero and comes back.
func TestALimitHoldsForAllProcessesAndOutlivesThem(t *testing.T) {
	const quota, window = 60, 10 * time.Minute
	s := start(t, mongotest.URI(t), "THROTTLE=on")
	other := e2e.Start(t, "signup", s.env["signup"]...)
	call := func(p *e2e.Process, email string) (int, string) {
		status, header, _, err := e2e.Call(t.Context(), http.MethodPost, p.URL+"/api/users/signup", "", credentials(email+"@example.com"))
		if err != nil {
			t.Fatal(err)
		}
		return status, header.Get("Retry-After")
	}
	for round := 0; ; round++ {
		began := time.Now().Truncate(window)
		created := 0
		for i := range quota + 5 {
			status, _ := call([]*e2e.Process{s.all["signup"], other}[i%2], fmt.Sprintf("u%d-%d", round, i))
			if status == http.StatusCreated {
				created++
			}
		}
		s.all["signup"].Signal(syscall.SIGTERM)
		s.restart(t, "signup")
		status, after := call(s.all["signup"], fmt.Sprint("last", round))
		if !time.Now().Truncate(window).Equal(began) && round == 0 {
			continue // a window ended in the middle: the next will not, so soon
		}
		if created != quota || status != http.StatusTooManyRequests || after == "" {
			t.Errorf("%d sign-ups of one address, then %d, Retry-After %q", created, status, after)
		}
		return
	}
}
