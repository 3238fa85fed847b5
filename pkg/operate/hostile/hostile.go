// Package hostile has bad clients of HTTPS and MQTT servers: slow, half-open, oversized,
// malformed, and with wrong passwords and certificates. Each attack is one connection, and
// returns what the server did. Tests and the doctor decide how many run at once, and which
// outcome is good.
package hostile

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Victim is what is attacked.
type Victim struct {
	Address string
	TLS     *tls.Config // with the server's name
	Path    string      // of requests, such as /status
	// Own is the certificate of a registered controller, Foreign one of another CA.
	// Attacks on MQTT over mTLS (MQTT) need both.
	Own, Foreign tls.Certificate
	// From is the IP address that connections come from. Default: the system's choice.
	From string
}

// Reaction is how the server reacted to an attack.
type Reaction struct {
	Status int           // HTTP status of the response; 0: none
	Answer []byte        // the beginning of the response
	Held   time.Duration // until the server closed the connection
}

// answerKept is how much of a response is in an Outcome.
const answerKept = 16 << 10

// ErrHeld means that the server did not close the connection in time.
var ErrHeld = errors.New("the server keeps the connection open")

// Attack is one way to misuse a connection.
type Attack struct {
	Name string
	// Oversized is true if it sends more than a server should read, at once.
	Oversized bool
	// Within is how soon the server should close the connection.
	Within time.Duration
	// plain is without TLS. begin is sent at once, then after the first byte of the response,
	// drip again and again.
	plain             bool
	begin, then, drip string
	// shows is the certificate that the client presents, if any.
	shows certificate
	// again is what a second connection sends while the first is open. Then it ends.
	again string
	// want matches the whole Answer of a server that reacts as it should.
	want *regexp.Regexp
}

type certificate int

const (
	none certificate = iota
	own
	foreign
)

// Refused returns an error unless the server responded as it should.
func (a Attack) Refused(o Reaction) error {
	var answer strings.Builder // one character for each byte, as in the pattern
	for _, b := range o.Answer {
		answer.WriteRune(rune(b))
	}
	if !a.want.MatchString(answer.String()) {
		return fmt.Errorf("%s: unexpected response %.200q", a.Name, o.Answer)
	}
	return nil
}

func want(pattern string) *regexp.Regexp { return regexp.MustCompile(`(?s)^(?:` + pattern + `)$`) }

// httpRefusal is no response, or an error status.
var httpRefusal = want(`(HTTP/1\.[01] [45].*)?`)

// httpWithin is longer than the time that any server here allows for a request.
const httpWithin = 30 * time.Second

// dripInterval is how often a slow attacker sends something.
const dripInterval = 500 * time.Millisecond

// large is what an oversized attacker sends: a little less than the header that net/http accepts
// by default.
const large = 1<<20 - 1<<10

// guess is a wrong password.
const guess = "Authorization: Basic ZG9jdG9yOmd1ZXNz\r\n"

// Attacks lists all attacks on a path of an HTTPS server.
func Attacks(path string) []Attack {
	get := "GET " + path + " HTTP/1.1\r\nHost: mesh\r\n"
	post := "POST " + path + " HTTP/1.1\r\nHost: mesh\r\nConnection: close\r\nContent-Type: application/pkcs10\r\n" + guess
	size := fmt.Sprintf("Content-Length: %d\r\n\r\n", large)
	attacks := []Attack{
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
	for i := range attacks {
		attacks[i].Within, attacks[i].want = httpWithin, httpRefusal
		if attacks[i].plain {
			attacks[i].want = want(`.*`) // an alert, or plain text
		}
	}
	return attacks
}

// Do carries out the attack once. The error is ErrHeld if ctx ends first. Any other error means
// that the attack could not run, because the server did not accept the connection.
func (a Attack) Do(ctx context.Context, s Victim) (Reaction, error) {
	conn, err := a.connect(ctx, s)
	if err != nil {
		return Reaction{}, err
	}
	defer cut(conn)
	interrupt := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer interrupt()
	began := time.Now()
	done, answered, closed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		a.send(conn, answered, closed)
		if a.again != "" {
			_, _ = Attack{begin: a.again, shows: a.shows}.Do(ctx, s)
		}
	}()
	out := Reaction{}
	answer := bufio.NewReader(conn)
	_, _ = answer.Peek(1)
	close(answered)
	out.Answer, _ = io.ReadAll(io.LimitReader(answer, answerKept))
	_, _ = io.Copy(io.Discard, answer)
	out.Held = time.Since(began)
	close(closed)
	cut(conn) // ends the sending
	<-done
	if response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(out.Answer)), nil); err == nil {
		out.Status = response.StatusCode
		_ = response.Body.Close()
	}
	if ctx.Err() != nil {
		return out, fmt.Errorf("%w for %s", ErrHeld, out.Held.Round(time.Second))
	}
	return out, nil
}

// cut closes without a TLS alert, which would block on a server that does not read.
func cut(conn net.Conn) {
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn()
	}
	_ = conn.Close()
}

func (a Attack) connect(ctx context.Context, s Victim) (net.Conn, error) {
	conn, err := s.dial(ctx)
	if err != nil || a.plain {
		return conn, err
	}
	config := s.TLS.Clone()
	switch a.shows {
	case none:
	case own:
		config.Certificates = []tls.Certificate{s.Own}
	case foreign: // also if the server lists the CAs that it accepts
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &s.Foreign, nil }
	}
	client := tls.Client(conn, config)
	if err := client.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return client, nil
}

// send sends until the connection is closed, or nothing is left to send.
func (a Attack) send(conn net.Conn, answered, closed <-chan struct{}) {
	_, err := io.WriteString(conn, a.begin)
	if err == nil && a.then != "" {
		<-answered
		_, err = io.WriteString(conn, a.then)
	}
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

// Open opens n idle connections. It returns how many of them the server has closed after wait,
// and a function that closes the others.
func Open(ctx context.Context, s Victim, n int, wait time.Duration) (closed int, end func(), err error) {
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
		_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); err != nil && !timedOut(err) {
			closed++
		}
	}
	return closed, end, nil
}

func (s Victim) dial(ctx context.Context) (net.Conn, error) {
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
