package httpserver

import (
	"io"
	"net/http"
	"time"
)

const (
	// discardTimeout is how long the server reads and discards the rest of a request
	// before it sends the response.
	discardTimeout = time.Second
	// lingerTimeout is how long it continues to read after the response.
	lingerTimeout = time.Second
)

// Drain returns a handler that prevents a TCP reset from destroying the response of next.
//
// If a server closes a connection with unread data, it resets the connection. The reset can
// overtake the response (RFC 9112 §9.6). So Drain reads and discards the rest of the body,
// for a limited time. It does so before it sends the response, because some clients and
// proxies send the whole request before they read. A client that sends slowly, or that has
// stopped, receives the response after discardTimeout. A client that waits for 100 (Continue)
// receives it at once.
//
// Unless next has read the whole body, the response closes the connection. Otherwise the
// rest of the body could be parsed as the next request. The response to a chunked request
// closes the connection as well. If a request has both a length and chunks, net/http reads
// the chunks and hides the length. A proxy that reads by the length would then see another
// request (RFC 9112 §6.1: "MUST close").
//
// next receives a copy of the request, because net/http inspects the body of the original.
// Handler includes Drain.
func Drain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		body := &trackedBody{ReadCloser: r.Body}
		request := r.WithContext(r.Context())
		request.Body = body
		next.ServeHTTP(&closingWriter{w, body, r.ContentLength < 0}, request)
		if body.err != io.EOF {
			discardRest(w, body, r.Header.Get("Expect") != "" && !body.read)
		}
	})
}

// discardRest reads the rest of a request and sends the response.
func discardRest(w http.ResponseWriter, body *trackedBody, expectsContinue bool) {
	c := http.NewResponseController(w)
	if body.err == nil && !expectsContinue {
		c.SetReadDeadline(time.Now().Add(discardTimeout))
		if io.Copy(io.Discard, body); body.err == io.EOF {
			return
		}
	}
	c.Flush()
	if w.Header().Get("Content-Length") == "" {
		return // net/http has yet to write the end of the response
	}
	// the rest may not be a valid body, so it is read from the connection
	conn, _, err := c.Hijack()
	if err != nil {
		return // AWS Lambda
	}
	defer conn.Close()
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	conn.SetReadDeadline(time.Now().Add(lingerTimeout))
	io.Copy(io.Discard, conn)
}

// A trackedBody records how far a body was read.
type trackedBody struct {
	io.ReadCloser
	read bool  // Read was called
	err  error // of the last read; io.EOF at the end
}

// Read implements io.Reader.
func (b *trackedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read, b.err = true, err
	return n, err
}

// A closingWriter writes a response that closes the connection, unless the request is not
// chunked and was read to its end.
type closingWriter struct {
	http.ResponseWriter
	body    *trackedBody
	chunked bool
}

// WriteHeader implements http.ResponseWriter.
func (w *closingWriter) WriteHeader(status int) {
	if w.chunked || w.body.err != io.EOF {
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(status)
}
