package httpserver_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// listen starts a server and returns its address.
func listen(t *testing.T) string {
	t.Helper()
	return serveUntilEnd(t, newConfig(io.Discard, nil), echo(nil))
}

// exchange sends bytes and returns the status of each response. "closed" follows the status
// of a response with Connection: close.
func exchange(t *testing.T, address, raw string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() { // a server that rejects the request does not read it all
		io.WriteString(c, raw)
		c.(*net.TCPConn).CloseWrite()
	}()
	var got []string
	for r := bufio.NewReader(c); ; {
		if _, err := r.Peek(1); err != nil {
			return strings.Join(got, " ")
		}
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		got = append(got, fmt.Sprint(answer.StatusCode))
		if answer.Close {
			got = append(got, "closed")
		}
	}
}

// A proxy and the server must see the same requests on a connection. Otherwise an attacker
// can hide a request in bytes that the proxy takes for a body. The server would treat it as
// a request of another client (RFC 9112 §11.2). So the server rejects an ambiguous request or
// closes the connection after its response.
//
// The server accepts bare LF, a folded line and two equal lengths, as the RFC allows (§2.2,
// §5.2, §6.3). The errors of net/http itself are in plain text.
func TestServer_RequestSmuggling(t *testing.T) {
	t.Parallel()
	address := listen(t)
	const (
		body     = `{"name":"ann"}` // 14 bytes
		smuggled = "POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
		post     = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
		chunked  = "Transfer-Encoding: chunked\r\n"
		chunks   = "e\r\n" + body + "\r\n0\r\n\r\n"
		length   = "Content-Length: 14\r\n"
		rejected = "400 closed"
	)
	for _, c := range []struct{ name, raw, want string }{
		{"a request with a length", post + length + "\r\n" + body, "200"},
		{"a chunked request closes the connection", post + chunked + "\r\n" + chunks, "200 closed"},
		{"two pipelined requests get a response each", post + length + "\r\n" + body + smuggled, "200 404"},
		{"a request after chunks is not read", post + chunked + "\r\n" + chunks + smuggled, "200 closed"},

		{"a length and chunks", post + length + chunked + "\r\n" + chunks + smuggled, "200 closed"},
		{"chunks and a length", post + chunked + "Content-Length: 3\r\n" + "\r\n" + chunks + smuggled, "200 closed"},
		{"two lengths that differ", post + length + "Content-Length: 0\r\n\r\n" + body + smuggled, rejected},
		{"two lengths that agree", post + length + length + "\r\n" + body + smuggled, "200 404"},
		{"two lengths in one header", post + "Content-Length: 14, 14\r\n\r\n" + body + smuggled, rejected},
		{"a length with a plus", post + "Content-Length: +14\r\n\r\n" + body + smuggled, rejected},
		{"a length with a minus", post + "Content-Length: -14\r\n\r\n" + body + smuggled, rejected},
		{"a length in hexadecimal", post + "Content-Length: 0xe\r\n\r\n" + body + smuggled, rejected},
		{"a length with an underscore", post + "Content-Length: 1_4\r\n\r\n" + body + smuggled, rejected},
		{"an empty length", post + "Content-Length: \r\n\r\n" + body + smuggled, rejected},
		{"a length beyond 64 bits", post + "Content-Length: 18446744073709551630\r\n\r\n" + body + smuggled, rejected},
		{"a length between spaces", post + "Content-Length:  14 \r\n\r\n" + body, "200"},
		{"a length with a vertical tab", post + "Content-Length: \v14\r\n\r\n" + body + smuggled, rejected},

		{"an unknown coding", post + "Transfer-Encoding: xchunked\r\n\r\n" + chunks + smuggled, "501 closed"},
		{"two codings", post + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks + smuggled, "501 closed"},
		{"chunked twice", post + chunked + chunked + "\r\n" + chunks + smuggled, "501 closed"},
		{"chunked and identity", post + "Transfer-Encoding: chunked, identity\r\n\r\n" + chunks + smuggled, "501 closed"},
		{"identity", post + "Transfer-Encoding: identity\r\n" + length + "\r\n" + body + smuggled, "501 closed"},
		{"a coding on a folded line", post + "Transfer-Encoding:\r\n chunked\r\n\r\n" + chunks + smuggled, "200 closed"},
		{"a coding after a vertical tab", post + "Transfer-Encoding: \vchunked\r\n\r\n" + chunks + smuggled, rejected},
		{"a coding in quotes", post + "Transfer-Encoding: \"chunked\"\r\n\r\n" + chunks + smuggled, "501 closed"},
		{"a coding in capitals", post + "Transfer-Encoding: Chunked\r\n\r\n" + chunks, "200 closed"},
		{"chunked in HTTP/1.0", strings.Replace(post, "1.1", "1.0", 1) + chunked + "\r\n" + chunks + smuggled, rejected},
		{"a chunk with a sign", post + chunked + "\r\n+e\r\n" + body + "\r\n0\r\n\r\n" + smuggled, rejected},
		{"a chunk with 0x", post + chunked + "\r\n0xe\r\n" + body + "\r\n0\r\n\r\n" + smuggled, rejected},
		{"a chunk longer than its size", post + chunked + "\r\nd\r\n" + body + "\r\n0\r\n\r\n" + smuggled, rejected},
		{"a chunk ended by a bare LF", post + chunked + "\r\ne\n" + body + "\r\n0\r\n\r\n" + smuggled, rejected},
		{"a chunk extension with a bare LF", post + chunked + "\r\ne;a\nb\r\n" + body + "\r\n0\r\n\r\n" + smuggled, rejected},
		{"a chunk size beyond 64 bits", post + chunked + "\r\n1000000000000000e\r\n" + body + "\r\n0\r\n\r\n" + smuggled, rejected},
		{"a trailer that names a length", post + chunked + "\r\ne\r\n" + body + "\r\n0\r\nContent-Length: 5\r\n\r\n" + smuggled, "200 closed"},

		{"lines ended by bare LF", strings.ReplaceAll(post+length+"\r\n", "\r\n", "\n") + body + smuggled, "200 404"},
		{"a bare CR in a header", post + "X: a\rContent-Length: 0\r\n" + length + "\r\n" + body + smuggled, rejected},
		{"NUL in a header", post + "X: a\x00b\r\n" + length + "\r\n" + body + smuggled, rejected},
		{"NUL in a name", post + "X\x00: a\r\n" + length + "\r\n" + body + smuggled, rejected},
		{"a space before the colon", post + "Content-Length : 14\r\n\r\n" + body + smuggled, rejected},
		{"a tab before the colon", post + "Transfer-Encoding\t: chunked\r\n\r\n" + chunks + smuggled, rejected},
		{"a name that begins with a space", "POST /echo HTTP/1.1\r\n Host: x\r\n" + length + "\r\n" + body + smuggled, rejected},
		{"a folded header", post + "X: a\r\n b\r\n" + length + "\r\n" + body + smuggled, "200 404"},
		{"a header without a colon", post + "X\r\n" + length + "\r\n" + body + smuggled, rejected},
		{"a header without a name", post + ": a\r\n" + length + "\r\n" + body + smuggled, rejected},

		{"no Host", "GET /health/liveness HTTP/1.1\r\n\r\n" + smuggled, rejected},
		{"two Hosts", "GET /health/liveness HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + smuggled, rejected},
		{"a Host with a slash", "GET /health/liveness HTTP/1.1\r\nHost: x/y\r\n\r\n" + smuggled, rejected},
		{"a Host with a space", "GET /health/liveness HTTP/1.1\r\nHost: x y\r\n\r\n" + smuggled, rejected},
		{"an absolute URI", "GET http://other.example/health/liveness HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled, "200 404"},
		{"an absolute URI of another scheme", "GET file:///health/liveness HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled, "200 404"},
		{"a CONNECT", "CONNECT /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled, "405 404"},
		{"an authority", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n" + smuggled, "404 404"},
		{"a GET of an authority", "GET evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled, "404 404"},
		{"a URI with a space", "GET /health/liveness x HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled, rejected},
		{"a URI with a NUL", "GET /health\x00 HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled, rejected},
		{"a URI with a fragment", "GET /health/liveness#x HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled, "404 404"},
		{"an asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled, "404 404"},

		{"HTTP/1.0", "GET /health/liveness HTTP/1.0\r\n\r\n" + smuggled, "200 closed"},
		{"HTTP/1.0 with keep-alive", "GET /health/liveness HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + smuggled, "200 404"},
		{"HTTP/0.9", "GET /health/liveness\r\n\r\n" + smuggled, rejected},
		{"HTTP/1.2", "GET /health/liveness HTTP/1.2\r\nHost: x\r\n\r\n" + smuggled, "200 404"},
		{"HTTP/2.0 in the request line", "GET /health/liveness HTTP/2.0\r\nHost: x\r\n\r\n" + smuggled, "505 closed"},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "404 closed"},
		{"a version in lower case", "GET /health/liveness http/1.1\r\nHost: x\r\n\r\n" + smuggled, rejected},
		{"a method in lower case", "get /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n", "405"},
		{"a method with a slash", "G/T /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled, rejected},
		{"an empty line first", "\r\n" + "GET /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n", rejected},
		{"TLS on the plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", rejected},

		{"a request after a body that is not read", "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 57\r\n\r\n" + smuggled + smuggled, "404 closed"},
		{"a request after a body too large", post + "Content-Length: 20000\r\n\r\n" + strings.Repeat(" ", 20000) + smuggled, "413 closed"},
		{"a request after the body of a GET", "GET /health/liveness HTTP/1.1\r\nHost: x\r\nContent-Length: 57\r\n\r\n" + smuggled + smuggled, "200 closed"},
		{"a request after a chunked body that is not read", "POST /nothing HTTP/1.1\r\nHost: x\r\n" + chunked + "\r\n" + chunks + smuggled, "404 closed"},
		{"100 Continue for a body that is read", post + length + "Expect: 100-continue\r\n\r\n" + body + smuggled, "100 200 404"},
		{"no 100 Continue for a body that is rejected", "POST /nothing HTTP/1.1\r\nHost: x\r\n" + length + "Expect: 100-continue\r\n\r\n" + body + smuggled, "404 closed"},
		{"another expectation", post + length + "Expect: 200-ok\r\n\r\n" + body + smuggled, "417 closed"},
		{"an upgrade", "GET /health/liveness HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + smuggled, "200 404"},
		{"half a body", post + length + "\r\n" + body[:7], "400 closed"},
		{"half a header", "POST /echo HTTP/1.1\r\nHost: x\r\nConte", rejected},

		{"a header of 15 KiB", "GET /health/liveness HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 15<<10) + "\r\n\r\n", "200"},
		{"a header of 17 KiB", "GET /health/liveness HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 17<<10) + "\r\n\r\n" + smuggled, "431 closed"},
		{"a thousand lines in a body", post + "Content-Length: 1014\r\n\r\n" + strings.Repeat("\n", 1000) + body + smuggled, "200 404"},
		{"three thousand headers", "GET /health/liveness HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: a\r\n", 3000) + "\r\n" + smuggled, "431 closed"},
		{"a header that never ends", "GET /health/liveness HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 1<<20), "431 closed"},
		{"a URI of 17 KiB", "GET /" + strings.Repeat("a", 17<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled, "431 closed"},
		{"a URI of 15 KiB", "GET /" + strings.Repeat("a", 15<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := exchange(t, address, c.raw); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// net/http sends these responses without a call of the handler. infra/docs/api.md lists them.
func TestServer_ErrorsBeforeTheHandler(t *testing.T) {
	t.Parallel()
	address := listen(t)
	const plain, none = "text/plain; charset=utf-8", ""
	for _, c := range []struct {
		raw         string
		status      int
		contentType string
	}{
		{"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, plain},
		{"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400, plain},
		{"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400, plain},
		{"GET minimal HTTP/1.1\r\nHost: x\r\n\r\n", 400, plain},
		{"GET / HTTP/1.1\r\n\r\n", 400, plain},
		{"GET / HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n", 400, plain},
		{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, plain},
		{"GET / HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\n\r\n", 417, none},
		{"GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("b", 17<<10) + "\r\n\r\n", 431, plain},
		{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, plain},
		{"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, plain},
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, c.raw)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || answer.StatusCode != c.status || answer.Header.Get("Content-Type") != c.contentType || !answer.Close {
			t.Errorf("%.40q: got %v %v, want %d %q and Connection: close", c.raw, answer, err, c.status, c.contentType)
		}
		conn.Close()
	}
}

func TestServer_UnknownPath(t *testing.T) {
	address := listen(t)
	for _, path := range []string{
		"/", "//", "//echo", "//echo/echo", "/echo/", "/echo%2F", "/ech%6F", "/echo%3F", "/%00", "/%0A", "/%FF", "/\xff", "/\x80", "/\xc3\xa9", "/\xf0\x9f\x90\x8e",
		"/\"", "/<>", "/\\", "/^`{|}", "/;", "/..", "/../echo", "/./echo", "/echo/../echo", "/*", "*", "http://x/nothing", "http://x", "/http://x/echo", "/?/echo",
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", path)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
		body, _ := io.ReadAll(answer.Body)
		conn.Close()
		if answer.StatusCode != http.StatusNotFound || string(body) != `{"errors":[{"message":"There is nothing here."}]}` || answer.Header.Get("Content-Type") != "application/json" ||
			answer.Header.Get("Server") != "" || answer.Header.Get("X-Powered-By") != "" {
			t.Errorf("%q: got %v %s, want the JSON error 404", path, answer, body)
		}
	}
}
