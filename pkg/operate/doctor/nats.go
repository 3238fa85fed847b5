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

	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
)

const (
	operatorNATS = "nats_operator_password"
	sysNATS      = "nats_sys_password"
	consoleNATS  = "nats_console_password"
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
			"take the accounts in nats-server.conf as shipped, and reload", natsPermissions,
		},
		{
			"nats-replies", "Best practices: least privilege", "each user's request, and consumer, whose answers go to a subject that is not its own",
			"take the accounts in nats-server.conf as shipped: each user alone in one, and no import of what makes consumers; and reload", natsReplies,
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

// confined is what one user must not do, and a request that it may make.
type confined struct {
	secret  string
	publish []string
	request string
}

// none is the payload of what must not be published: it purges what does not exist, and
// makes or changes nothing.
const none = `{"filter":"f2.doctor.none","doctor":%q}`

func confinedNATS() []confined {
	api := []string{
		"$JS.API.STREAM.PURGE.DEAD_LETTER", "$JS.API.STREAM.PURGE.AUDIT", "$JS.API.STREAM.UPDATE.AUDIT", "$JS.API.STREAM.UPDATE.RAW",
		"$JS.API.STREAM.CREATE.DOCTOR", "$JS.API.STREAM.DELETE.DOCTOR", "$JS.API.CONSUMER.CREATE.RAW.doctor", "$JS.API.CONSUMER.DELETE.RAW.doctor",
	}
	purge := append([]string{"$JS.API.STREAM.PURGE.RAW", "$JS.API.STREAM.PURGE.DECODED"}, api...)
	with := func(more []string, subjects ...string) []string { return append(subjects, more...) }
	return []confined{
		{"nats_bridge_password", with(purge, "f2.decoded.doctor", "f2.dead.writer.doctor", "f2.audit.doctor"), "$JS.API.STREAM.INFO.RAW"},
		{"nats_decoder_password", with(purge, "f2.raw.doctor", "f2.command.doctor", "f2.audit.doctor"), "$JS.API.STREAM.INFO.RAW"},
		{"nats_writer_password", with(purge, "f2.raw.doctor", "f2.decoded.doctor", "f2.command.doctor"), "$JS.API.STREAM.INFO.DECODED"},
		{"nats_registrar_password", with(purge, "f2.raw.doctor", "f2.decoded.doctor", "f2.command.doctor"), "$JS.API.STREAM.INFO.AUDIT"},
		{"nats_keeper_password", with(api, "f2.raw.doctor", "f2.decoded.doctor", "f2.command.doctor", "f2.dead.doctor", "f2.audit.doctor",
			"$JS.API.STREAM.MSG.GET.RAW"), "$JS.API.STREAM.INFO.RAW"},
		{consoleNATS, with(purge, "f2.raw.doctor", "f2.decoded.doctor", "f2.audit.doctor"), "$JS.API.STREAM.INFO.RAW"},
		{"nats_health_password", with(purge, "f2.raw.doctor", "f2.decoded.doctor", "f2.command.doctor", "f2.dead.doctor", "f2.audit.doctor",
			"$JS.API.STREAM.MSG.GET.DECODED"), "$JS.API.STREAM.INFO.RAW"},
	}
}

// overheard are subscriptions that bring what is meant for others, each with a subject
// on which the operator publishes; nothing stores it.
func overheard(secret string) []struct{ listen, publish string } {
	all := []struct{ listen, publish string }{
		{"_INBOX_operator.>", "_INBOX_operator.doctor"},
		{"$SRV.>", "$SRV.PING.f2mesh-doctor"}, // whoever hears it can answer as that service
		{"f2.>", "f2.doctor.heard"},
	}
	if secret == consoleNATS {
		return all[:2] // it hears what the operator publishes
	}
	return all
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
	operator, err := m.natsUser(ctx, operatorNATS)
	if err != nil {
		return failed("cannot be tried: %v", err)
	}
	defer operator.Close()
	var problems []string
	tried := 0
	note := func(err error) {
		if tried++; err != nil {
			problems = append(problems, err.Error())
		}
	}
	for _, c := range confinedNATS() {
		nc, err := m.natsUser(ctx, c.secret, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			note(fmt.Errorf("%s cannot be tried: %w", c.secret, err))
			continue
		}
		for _, subject := range c.publish {
			note(passes(nc, operator, subject, subject, c.secret))
		}
		for _, o := range overheard(c.secret) {
			note(passes(operator, nc, o.publish, o.listen, c.secret))
		}
		nc.Close()
	}
	for _, a := range apart() {
		note(m.natsApart(ctx, a.secret, a.subject, a.control))
	}
	return verdict(problems, "%d subjects, all refused", tried)
}

// passes is an error if what one publishes reaches the other, who listens.
func passes(from, to *nats.Conn, subject, listen, secret string) error {
	tap, err := to.SubscribeSync(listen)
	if err != nil {
		return fmt.Errorf("%s cannot be tried: %w", listen, err)
	}
	defer func() { _ = tap.Unsubscribe() }()
	mark := marker()
	for _, step := range []func() error{
		to.Flush, func() error { return from.Publish(subject, fmt.Appendf(nil, none, mark)) }, from.Flush, to.Flush,
	} {
		if err := step(); err != nil && !errors.Is(err, nats.ErrPermissionViolation) {
			return fmt.Errorf("%s cannot be tried: %w", subject, err)
		}
	}
	if came(tap, mark) {
		return fmt.Errorf("the user of %s may use %s", secret, listen)
	}
	return nil
}

// came tells whether a subscription has received something that contains text.
func came(tap *nats.Subscription, text string) bool {
	for {
		m, err := tap.NextMsg(time.Millisecond)
		if err != nil {
			return false
		}
		if strings.Contains(string(m.Data), text) {
			return true
		}
	}
}

// replyWait is how long an answer may take that must not come.
const replyWait = 200 * time.Millisecond

// natsReplies has the operator, in whose account the streams are, listen where nothing
// is stored and nobody else may publish: what the server can be made to publish there,
// it can be made to publish on a stream.
func natsReplies(ctx context.Context, m *Mesh) Finding {
	operator, err := m.natsUser(ctx, operatorNATS)
	if err != nil {
		return failed("cannot be tried: %v", err)
	}
	defer operator.Close()
	var problems []string
	for _, c := range confinedNATS() {
		if err := m.natsReply(ctx, operator, c); err != nil {
			problems = append(problems, err.Error())
		}
	}
	return verdict(problems, "%d users, and no answer left an account", len(confinedNATS()))
}

func (m *Mesh) natsReply(ctx context.Context, operator *nats.Conn, c confined) error {
	nc, err := m.natsUser(ctx, c.secret, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return fmt.Errorf("%s cannot be tried: %w", c.secret, err)
	}
	defer nc.Close()
	target := "f2.doctor." + marker()
	tap, err := operator.SubscribeSync(target)
	if err != nil {
		return err
	}
	if err := operator.Flush(); err != nil {
		return err
	}
	if err := nc.PublishRequest(c.request, target, nil); err != nil {
		return fmt.Errorf("%s cannot be tried: %w", c.request, err)
	}
	if _, err := nc.RequestWithContext(ctx, c.request, nil); err != nil {
		return fmt.Errorf("%s cannot be tried, the user of %s was not answered: %w", c.request, c.secret, err)
	}
	if m, err := tap.NextMsg(replyWait); err == nil {
		return fmt.Errorf("the user of %s has the server publish on %s", c.secret, m.Subject)
	}
	const create, remove = "$JS.API.CONSUMER.CREATE.RAW.doctor", "$JS.API.CONSUMER.DELETE.RAW.doctor"
	consumer := fmt.Sprintf(`{"stream_name":"RAW","config":{"name":"doctor","deliver_subject":%q,"deliver_policy":"last","ack_policy":"none","inactive_threshold":%d}}`,
		target, 10*time.Second)
	answer, err := nc.Request(create, []byte(consumer), replyWait)
	if err == nil {
		_, _ = operator.RequestWithContext(ctx, remove, nil)
		return fmt.Errorf("the user of %s has a consumer deliver where it likes: %s", c.secret, answer.Data)
	}
	return nil
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
