package doctor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/natsserver"
)

const (
	operatorNATS = "nats_operator_password"
	sysNATS      = "nats_sys_password"
)

func natsChecks() []Check {
	return []Check{
		{
			"nats-anonymous", "Authentication tests", "a connection without user and password",
			"take accounts and no_auth_user in nats-server.conf as shipped, and restart", natsAnonymous,
		},
		{
			"nats-password", "Authentication tests", "a connection with a wrong password",
			"take passwords.conf as f2mesh writes it, and restart", natsPassword,
		},
		{
			"nats-tls", "Production Hardening: TLS encryption", "a login without TLS",
			"take the tls block of nats-server.conf as shipped, and restart", natsTLS,
		},
		{
			"nats-permissions", "Best practices: least privilege", "each user's publish and subscribe where it has nothing to do",
			"take the permissions in nats-server.conf as shipped, and reload", natsPermissions,
		},
	}
}

// inbox is for answers to a user and to its alternate, as the server has it.
func inbox(user string) nats.Option { return nats.CustomInboxPrefix(natsserver.InboxPrefix(user)) }

// connectNATS logs in once.
func (m *Mesh) connectNATS(options ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("tls://"+m.address(m.Ports.NATS), append(options,
		nats.RootCAs(m.CAFile), nats.NoReconnect(), nats.Timeout(10*time.Second), nats.Name("f2mesh doctor"))...)
}

// natsUser logs in with a credential.
func (m *Mesh) natsUser(ctx context.Context, name string, options ...nats.Option) (*nats.Conn, error) {
	user, password, err := m.LogIn(ctx, name)
	if err != nil {
		return nil, err
	}
	return m.connectNATS(append(options, nats.UserInfo(user, password), inbox(user))...)
}

func (m *Mesh) natsLogin(options ...nats.Option) error {
	nc, err := m.connectNATS(options...)
	if err == nil {
		nc.Close()
	}
	return err
}

func natsAnonymous(ctx context.Context, m *Mesh) Finding { return m.natsRefused(ctx, "no user") }

func natsPassword(ctx context.Context, m *Mesh) Finding {
	user, _, err := m.LogIn(ctx, operatorNATS)
	if err != nil {
		return failed("%v", err)
	}
	return m.natsRefused(ctx, "wrong password", nats.UserInfo(user, marker()))
}

func (m *Mesh) natsRefused(ctx context.Context, name string, options ...nats.Option) Finding {
	user, password, err := m.LogIn(ctx, operatorNATS)
	if err != nil {
		return failed("%v", err)
	}
	return refused([]attempt{{
		name,
		func() error { return m.natsLogin(nats.UserInfo(user, password)) },
		func() error { return m.natsLogin(options...) },
	}})
}

// natsTLS speaks the protocol by hand: a client library would turn to TLS. It has
// no good password on a line that is not encrypted.
func natsTLS(ctx context.Context, m *Mesh) Finding {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", m.address(m.Ports.NATS))
	if err != nil {
		return failed("cannot be tried: %v", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // else the check's own timeout is later
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil {
		return failed("cannot be tried: %v", err)
	}
	var info struct {
		TLSRequired bool `json:"tls_required"`
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "INFO ")), &info); err != nil {
		return failed("the server's greeting cannot be read: %v", err)
	}
	if !info.TLSRequired {
		return failed("the server does without TLS")
	}
	_, _ = conn.Write([]byte("CONNECT {\"verbose\":true,\"user\":\"doctor\",\"pass\":\"\"}\r\nPING\r\n"))
	answer, err := in.ReadString('\n')
	if err == nil && (strings.HasPrefix(answer, "+OK") || strings.HasPrefix(answer, "PONG") || strings.Contains(answer, "Authorization")) {
		return failed("the server looked at a login without TLS: %s", strings.TrimSpace(answer))
	}
	return ok("TLS is required, and a login without it ended the connection")
}

// forbidden is what one user must not do. A payload makes sure that nothing is
// lost where it can be done after all.
type forbidden struct {
	secret  string
	publish []string
	listen  []string
}

// none is the payload of requests: it purges what does not exist.
const none = `{"filter":"f2.doctor.none"}`

func forbiddenNATS() []forbidden {
	purge := []string{
		"$JS.API.STREAM.PURGE.RAW", "$JS.API.STREAM.PURGE.DECODED", "$JS.API.STREAM.PURGE.DEAD_LETTER", "$JS.API.STREAM.PURGE.AUDIT",
		"$JS.API.STREAM.UPDATE.AUDIT", "$JS.API.STREAM.CREATE.DOCTOR", "$JS.API.STREAM.DELETE.DOCTOR",
	}
	with := func(subjects ...string) []string { return append(subjects, purge...) }
	return []forbidden{
		{"nats_bridge_password", with("f2.decoded.doctor", "f2.dead.writer.doctor", "f2.audit.doctor"), []string{"f2.decoded.>", "_INBOX_operator.>"}},
		{"nats_decoder_password", with("f2.raw.doctor", "f2.command.doctor", "f2.audit.doctor"), []string{"f2.command.>", "_INBOX_operator.>"}},
		{"nats_writer_password", with("f2.raw.doctor", "f2.decoded.doctor", "f2.command.doctor"), []string{"f2.raw.>", "_INBOX_operator.>"}},
		{"nats_registrar_password", with("f2.raw.doctor", "f2.decoded.doctor", "f2.command.doctor"), []string{"f2.raw.>", "_INBOX_operator.>"}},
		{"nats_keeper_password", []string{
			"f2.raw.doctor", "f2.decoded.doctor", "f2.command.doctor", "f2.dead.doctor", "f2.audit.doctor",
			"$JS.API.STREAM.PURGE.DEAD_LETTER", "$JS.API.STREAM.PURGE.AUDIT", "$JS.API.STREAM.UPDATE.RAW", "$JS.API.STREAM.DELETE.DOCTOR",
			"$JS.API.STREAM.MSG.GET.RAW", "$JS.API.CONSUMER.CREATE.RAW.doctor",
		}, []string{"f2.>", "f2.raw.>", "_INBOX_operator.>"}},
		{"nats_console_password", with("f2.raw.doctor", "f2.decoded.doctor", "f2.audit.doctor"), []string{"_INBOX_operator.>"}},
		{"nats_health_password", with("f2.raw.doctor", "f2.decoded.doctor", "f2.command.doctor", "f2.dead.doctor", "f2.audit.doctor",
			"$JS.API.STREAM.MSG.GET.DECODED", "$JS.API.CONSUMER.CREATE.DECODED.doctor"), []string{"f2.>", "f2.decoded.>", "_INBOX_operator.>"}},
	}
}

// apart are the users who may do everything, each in an account of its own; what
// the one is answered the other must not be.
func apart() []struct{ secret, subject, control string } {
	return []struct{ secret, subject, control string }{
		{operatorNATS, "$SYS.REQ.SERVER.PING.VARZ", sysNATS},
		{sysNATS, "$JS.API.STREAM.NAMES", operatorNATS},
	}
}

func natsPermissions(ctx context.Context, m *Mesh) Finding {
	var problems []string
	tried := 0
	note := func(err error) {
		if tried++; err != nil {
			problems = append(problems, err.Error())
		}
	}
	for _, f := range forbiddenNATS() {
		for _, subject := range f.publish {
			note(m.natsForbidden(ctx, f.secret, subject, func(nc *nats.Conn) error { return nc.Publish(subject, []byte(none)) }))
		}
		for _, subject := range f.listen {
			note(m.natsForbidden(ctx, f.secret, subject, func(nc *nats.Conn) error {
				_, err := nc.Subscribe(subject, func(*nats.Msg) {})
				return err
			}))
		}
	}
	for _, a := range apart() {
		note(m.natsApart(ctx, a.secret, a.subject, a.control))
	}
	return verdict(problems, "%d subjects, all refused", tried)
}

// natsApart is nil if control's user is answered and that of secret is not.
func (m *Mesh) natsApart(ctx context.Context, secret, subject, control string) error {
	if err := m.natsAnswered(ctx, control, subject); err != nil {
		return fmt.Errorf("%s cannot be tried, the user of %s was not answered: %w", subject, control, err)
	}
	if m.natsAnswered(ctx, secret, subject) == nil {
		return fmt.Errorf("the user of %s may use %s", secret, subject)
	}
	return nil
}

// natsAnswered is an error also where the answer is one.
func (m *Mesh) natsAnswered(ctx context.Context, secret, subject string) error {
	nc, err := m.natsUser(ctx, secret)
	if err != nil {
		return err
	}
	defer nc.Close()
	reply, err := nc.Request(subject, nil, 10*time.Second)
	if err != nil {
		return err
	}
	var answer struct{ Error json.RawMessage }
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return fmt.Errorf("the answer is %s", answer.Error)
	}
	return nil
}

// natsForbidden is nil if the server tells of a violation, which comes before its
// answer to the flush.
func (m *Mesh) natsForbidden(ctx context.Context, secret, subject string, try func(*nats.Conn) error) error {
	nc, err := m.natsUser(ctx, secret, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return fmt.Errorf("%s cannot be tried: %w", secret, err)
	}
	defer nc.Close()
	if err = try(nc); err == nil {
		err = nc.FlushTimeout(10 * time.Second)
	}
	switch {
	case errors.Is(err, nats.ErrPermissionViolation), errors.Is(nc.LastError(), nats.ErrPermissionViolation):
		return nil
	case err != nil:
		return fmt.Errorf("%s cannot be tried: %w", secret, err)
	}
	return fmt.Errorf("the user of %s may use %s", secret, subject)
}
