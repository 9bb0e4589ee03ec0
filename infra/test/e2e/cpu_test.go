package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"ticketing.com/auth/shared/testing/mongotest"
)

// BenchmarkCPU measures the CPU time of a function for each request, and the requests per second of one CPU
// that follow from it. The client, the database and other processes of the machine do not count. The line
// "hash" is the password hash alone.
//
//	go test -run=^$ -bench=CPU -benchtime=500x ./infra/test/e2e
func BenchmarkCPU(b *testing.B) {
	s := start(b, mongotest.URI(b), "HASH_MEMORY_KIB=19456", "HASH_TIME=2", "RATE_LIMIT=accounts", "GOMAXPROCS=1")
	post := func(b *testing.B, function, body string) string {
		return do(b, http.MethodPost, s.url(function)+"/api/users/"+function, "", body)
	}
	g := parseTokens(b, post(b, "signup", credentials("ann@example.com")))
	for n := range userCount {
		post(b, "signup", credentials(emailOf(n)))
	}
	unique := 0
	for _, c := range []struct {
		function string
		send     func(b *testing.B, n int)
	}{
		{"signup", func(b *testing.B, _ int) {
			unique++
			post(b, "signup", credentials(fmt.Sprintf("new%d@example.com", unique)))
		}},
		{"signin", func(b *testing.B, n int) { post(b, "signin", credentials(emailOf(n%userCount))) }},
		{"refresh", func(b *testing.B, _ int) {
			g = parseTokens(b, post(b, "refresh", `{"refreshToken":"`+g.RefreshToken+`"}`))
		}},
		{"currentuser", func(b *testing.B, _ int) {
			do(b, http.MethodGet, s.url("currentuser")+"/api/users/currentuser", g.Token, "")
		}},
	} {
		b.Run(c.function, func(b *testing.B) {
			c.send(b, 0) // opens the connections
			before := s.processes[c.function].CPU(b)
			for n := range b.N {
				c.send(b, n)
			}
			reportCPU(b, s.processes[c.function].CPU(b)-before)
		})
	}
	b.Run("hash", func(b *testing.B) {
		before := ownCPU(b)
		for range b.N {
			argon2.IDKey([]byte("correct horse battery staple"), make([]byte, 16), 2, 19456, 1, 32)
		}
		reportCPU(b, ownCPU(b)-before)
	})
}

// ownCPU returns the CPU time of this process.
func ownCPU(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func reportCPU(b *testing.B, cpu time.Duration) {
	b.ReportMetric(float64(cpu.Microseconds())/1e3/float64(b.N), "ms-CPU/op")
	b.ReportMetric(float64(b.N)/cpu.Seconds(), "requests/s-CPU")
}

// do sends a request that must succeed, over an open connection if there is one.
func do(b *testing.B, method, url, access, body string) string {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), method, url, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if access != "" {
		r.Header.Set("Authorization", "Bearer "+access)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode/100 != 2 {
		b.Fatalf("%s: got %d %s %v, want success", url, response.StatusCode, answer, err)
	}
	return string(answer)
}
