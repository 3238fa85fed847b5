// Package hostile is bad clients of HTTPS and MQTT servers: slow, half-open, oversized,
// malformed, and with wrong passwords and certificates. Each attack is one connection and
// tells what the server did. Tests, the doctor and load harnesses decide how many run at
// once, and what is good.
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

// Server is what is attacked.
type Server struct {
	Address string
	TLS     *tls.Config // with the server's name
	Path    string      // of requests, such as /status
	// Own is the certificate of a controller that may come in, Foreign one of another CA.
	// Attacks on MQTT over mTLS (MQTT) need both.
	Own, Foreign tls.Certificate
	// From is the IP address that connections come from; "" for the usual one.
	From string
}

// Outcome is what the server made of an attack.
type Outcome struct {
	Status int           // of HTTP that it answered; 0: none
	Answer []byte        // the beginning of what it answered
	Held   time.Duration // until it had closed the connection
}

// answerKept is how much of an answer is in an Outcome.
const answerKept = 16 << 10

// ErrHeld means that the server had not closed the connection when the time was over.
var ErrHeld = errors.New("the server holds the connection")

// Attack is one way to misuse a connection.
type Attack struct {
	Name string
	// Oversized says that it sends more than a server needs to hear, and at once.
	Oversized bool
	// Within is how soon the server should have closed the connection.
	Within time.Duration
	// plain is without TLS. begin is sent at once, then when something is answered, drip
	// bit by bit, if any.
	plain             bool
	begin, then, drip string
	// shows says which certificate it shows, if any.
	shows certificate
	// again begins a second connection while the first is open, and ends it.
	again string
	// want matches all of an Answer as it should be.
	want *regexp.Regexp
}

type certificate int

const (
	none certificate = iota
	own
	foreign
)

// Refused is nil if the server answered the attack as it should.
func (a Attack) Refused(o Outcome) error {
	var answer strings.Builder // a byte a character, as the pattern has them
	for _, b := range o.Answer {
		answer.WriteRune(rune(b))
	}
	if !a.want.MatchString(answer.String()) {
		return fmt.Errorf("%s: answered with %.200q", a.Name, o.Answer)
	}
	return nil
}

func want(pattern string) *regexp.Regexp { return regexp.MustCompile(`(?s)^(?:` + pattern + `)$`) }

// httpRefusal is nothing, or a status that says no.
var httpRefusal = want(`(HTTP/1\.[01] [45].*)?`)

// httpWithin is longer than any server here gives a request.
const httpWithin = 30 * time.Second

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
			attacks[i].want = want(`.*`) // an alert, or in plain words
		}
	}
	return attacks
}

// Do carries it out once. Its error is ErrHeld when ctx ends first, or says that it could not
// be tried: the server was not there, or took no connection.
func (a Attack) Do(ctx context.Context, s Server) (Outcome, error) {
	conn, err := a.connect(ctx, s)
	if err != nil {
		return Outcome{}, err
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
	out := Outcome{}
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

// cut closes without a goodbye, which would wait for a server that does not read.
func cut(conn net.Conn) {
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn()
	}
	_ = conn.Close()
}

func (a Attack) connect(ctx context.Context, s Server) (net.Conn, error) {
	conn, err := s.dial(ctx)
	if err != nil || a.plain {
		return conn, err
	}
	config := s.TLS.Clone()
	switch a.shows {
	case none:
	case own:
		config.Certificates = []tls.Certificate{s.Own}
	case foreign: // also to a server that names the CAs that it takes
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &s.Foreign, nil }
	}
	client := tls.Client(conn, config)
	if err := client.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return client, nil
}

// send goes on until the connection is closed, or there is no more to send.
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
		_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
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
