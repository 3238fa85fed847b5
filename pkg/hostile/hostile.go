// Package hostile is bad clients of HTTPS servers: slow, half-open, oversized,
// malformed, and with wrong passwords. Each attack is one connection and tells what
// the server did. Tests, the doctor and load harnesses decide how many run at once,
// and what is good.
package hostile

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Server is what is attacked.
type Server struct {
	Address string
	TLS     *tls.Config // with the server's name
	Path    string      // of requests, such as /status
	// From is the IP address that connections come from; "" for the usual one.
	From string
}

// Outcome is what the server made of an attack.
type Outcome struct {
	Status int           // that it answered; 0: it closed the connection without a word
	Held   time.Duration // until it had closed the connection
}

// ErrHeld means that the server had not closed the connection when the time was over.
var ErrHeld = errors.New("the server holds the connection")

// Attack is one way to misuse a connection.
type Attack struct {
	Name string
	// Oversized says that it sends more than a server needs to hear, and at once.
	Oversized bool
	// plain is without TLS. begin is sent at once, then drip bit by bit, if any.
	plain       bool
	begin, drip string
}

// dripInterval is how often a slow attacker sends something.
const dripInterval = 500 * time.Millisecond

// large is what an oversized attacker sends: a little less than the header that
// net/http takes by itself.
const large = 1<<20 - 1<<10

// guess is a wrong password.
const guess = "Authorization: Basic ZG9jdG9yOmd1ZXNz\r\n"

// Attacks lists all of them, against a path.
func Attacks(path string) []Attack {
	get := "GET " + path + " HTTP/1.1\r\nHost: mesh\r\n"
	post := "POST " + path + " HTTP/1.1\r\nHost: mesh\r\nConnection: close\r\nContent-Type: application/pkcs10\r\n" + guess
	size := fmt.Sprintf("Content-Length: %d\r\n\r\n", large)
	return []Attack{
		{Name: "half-open", plain: true},
		{Name: "no request"},
		{Name: "slow header", begin: get, drip: "X-Slow: 1\r\n"},
		{Name: "slow body", begin: post + size, drip: "a"},
		{Name: "large header", Oversized: true, begin: get + "X-Large: " + strings.Repeat("a", large)},
		{Name: "many headers", Oversized: true, begin: get + strings.Repeat("X-Many: 1\r\n", large/11)},
		{Name: "large body", Oversized: true, begin: post + size + strings.Repeat("a", large)},
		{Name: "malformed request", begin: "\x00\xff GET\r\n \r\n: :\r\n\r\n"},
		{Name: "malformed TLS", plain: true, begin: "\x16\x03\x01\xff\xff" + strings.Repeat("\xff", 1<<16)},
		{Name: "no TLS", plain: true, begin: get + "\r\n"},
		{Name: "wrong password", begin: get + "Connection: close\r\n" + guess + "\r\n"},
	}
}

// Do carries it out once. Its error is ErrHeld when ctx ends first, or says that it could not
// be tried: the server was not there, or took no connection.
func (a Attack) Do(ctx context.Context, s Server) (Outcome, error) {
	conn, err := s.dial(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer func() { _ = conn.Close() }()
	if !a.plain {
		client := tls.Client(conn, s.TLS)
		if err := client.HandshakeContext(ctx); err != nil {
			return Outcome{}, err
		}
		conn = client
	}
	interrupt := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer interrupt()
	began := time.Now()
	done := make(chan struct{})
	closed := make(chan struct{})
	go func() {
		defer close(done)
		a.send(conn, closed)
	}()
	out := Outcome{}
	answer := bufio.NewReader(conn)
	if response, err := http.ReadResponse(answer, nil); err == nil {
		out.Status = response.StatusCode
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
	_, _ = io.Copy(io.Discard, answer)
	out.Held = time.Since(began)
	close(closed)
	_ = conn.Close() // ends the sending
	<-done
	if ctx.Err() != nil {
		return out, fmt.Errorf("%w for %s", ErrHeld, out.Held.Round(time.Second))
	}
	return out, nil
}

// send goes on until the connection is closed.
func (a Attack) send(conn net.Conn, closed <-chan struct{}) {
	_, err := io.WriteString(conn, a.begin)
	if a.drip == "" {
		return
	}
	ticker := time.NewTicker(dripInterval)
	defer ticker.Stop()
	for err == nil {
		select {
		case <-closed:
			return
		case <-ticker.C:
			_, err = io.WriteString(conn, a.drip)
		}
	}
}

// Open opens n connections that say nothing. It answers how many of them the server has
// closed after wait, and how to end the others.
func Open(ctx context.Context, s Server, n int, wait time.Duration) (closed int, end func(), err error) {
	var open []net.Conn
	end = func() {
		for _, conn := range open {
			_ = conn.Close()
		}
	}
	for range n {
		conn, err := s.dial(ctx)
		if err != nil {
			end()
			return 0, nil, err
		}
		open = append(open, conn)
	}
	time.Sleep(wait)
	for _, conn := range open {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); err != nil && !timedOut(err) {
			closed++
		}
	}
	return closed, end, nil
}

func (s Server) dial(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	if s.From != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(s.From)}
	}
	return dialer.DialContext(ctx, "tcp", s.Address)
}

func timedOut(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}
