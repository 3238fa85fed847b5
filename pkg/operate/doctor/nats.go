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

// natsTimeout bounds one step with the NATS server.
const natsTimeout = 10 * time.Second

func (t *Target) connectNATS(l login) (*nats.Conn, error) {
	return nats.Connect("tls://"+t.address(t.Ports.NATS), nats.UserInfo(l.user, l.password), nats.CustomInboxPrefix(natsserver.InboxPrefix(l.user)),
		nats.RootCAs(t.CAFile), nats.NoReconnect(), nats.Timeout(natsTimeout), nats.Name("f2mesh doctor"),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // refusals are expected
}

// natsUser logs in with a credential. The connection ends with ctx.
func (t *Target) natsUser(ctx context.Context, secret string) *nats.Conn {
	nc, err := t.connectNATS(t.login(ctx, secret))
	if err != nil {
		ensure(fmt.Errorf("logging in with %s: %w", secret, err))
	}
	context.AfterFunc(ctx, nc.Close)
	return nc
}

// natsLogin is a login, which ends at once.
func (t *Target) natsLogin(l login) func() error {
	return func() error {
		nc, err := t.connectNATS(l)
		nc.Close()
		return err
	}
}

func natsAnonymous(ctx context.Context, t *Target) Finding {
	valid := t.login(ctx, operatorNATS)
	return refused(attempt{"no user", t.natsLogin(valid), t.natsLogin(login{})})
}

func natsPassword(ctx context.Context, t *Target) Finding {
	valid := t.login(ctx, operatorNATS)
	return refused(attempt{"wrong password", t.natsLogin(valid), t.natsLogin(login{valid.user, marker()})})
}

// natsTLS writes the protocol itself, since a client library would use TLS. No valid password
// is sent without encryption.
func natsTLS(ctx context.Context, t *Target) Finding {
	conn := must((&net.Dialer{}).DialContext(ctx, "tcp", t.address(t.Ports.NATS)))
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(natsTimeout))
	in := bufio.NewReader(conn)
	greeting := must(in.ReadString('\n'))
	if !strings.Contains(greeting, `"tls_required":true`) {
		return failed("the server does not require TLS")
	}
	_, _ = conn.Write([]byte(`CONNECT {"verbose":true,"user":"doctor","pass":""}` + "\r\nPING\r\n"))
	line, err := in.ReadString('\n')
	if err == nil && (strings.HasPrefix(line, "+OK") || strings.HasPrefix(line, "PONG") || strings.Contains(line, "Authorization")) {
		return failed("the server processed a login without TLS: %s", strings.TrimSpace(line))
	}
	return ok("the server requires TLS, and closed a connection that logged in without it")
}

// confined is a user, subjects on which it must not publish, and a request that it may make.
type confined struct {
	secret  string
	publish []string
	request string
}

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
		{"nats_alarm_password", with(purge, "f2.raw.doctor", "f2.decoded.doctor", "f2.command.doctor", "f2.dead.doctor", "f2.audit.doctor",
			"$JS.API.STREAM.MSG.GET.RAW"), "$JS.API.STREAM.INFO.ALARM"},
		{consoleNATS, with(purge, "f2.raw.doctor", "f2.decoded.doctor", "f2.audit.doctor", "f2.alarms.state.doctor"), "$JS.API.STREAM.INFO.RAW"},
		{"nats_health_password", with(purge, "f2.raw.doctor", "f2.decoded.doctor", "f2.command.doctor", "f2.dead.doctor", "f2.audit.doctor",
			"$JS.API.STREAM.MSG.GET.DECODED"), "$JS.API.STREAM.INFO.RAW"},
	}
}

// overheard are subscriptions that receive what is meant for others, each with a subject on
// which the operator publishes. No stream stores it.
func overheard(secret string) []struct{ listen, publish string } {
	all := []struct{ listen, publish string }{
		{"_INBOX_operator.>", "_INBOX_operator.doctor"},
		{"$SRV.>", "$SRV.PING.f2mesh-doctor"}, // a user who receives it could reply as that service
		{"f2.>", "f2.doctor.heard"},
	}
	if secret == consoleNATS {
		return all[:2] // the console may receive what the operator publishes
	}
	return all
}

// apart are the users with all rights, each in an account of its own: secret's user must not
// get a reply on subject, control's user must.
func apart() []struct{ secret, subject, control string } {
	return []struct{ secret, subject, control string }{
		{operatorNATS, "$SYS.REQ.SERVER.PING.VARZ", sysNATS},
		{sysNATS, "$JS.API.STREAM.NAMES", operatorNATS},
	}
}

func natsPermissions(ctx context.Context, t *Target) Finding {
	operator := t.natsUser(ctx, operatorNATS)
	var problems []string
	tried := 0
	note := func(allowed bool, secret, subject string) {
		if tried++; allowed {
			problems = append(problems, fmt.Sprintf("the user of %s may use %s", secret, subject))
		}
	}
	for _, c := range confinedNATS() {
		nc := t.natsUser(ctx, c.secret)
		for _, subject := range c.publish {
			note(passes(nc, operator, subject, subject), c.secret, subject)
		}
		for _, o := range overheard(c.secret) {
			note(passes(operator, nc, o.publish, o.listen), c.secret, o.listen)
		}
	}
	for _, a := range apart() {
		if err := t.natsReplied(ctx, a.control, a.subject); err != nil {
			problems = append(problems, fmt.Sprintf("%s: not tested, the user of %s got no reply: %v", a.subject, a.control, err))
		}
		note(t.natsReplied(ctx, a.secret, a.subject) == nil, a.secret, a.subject)
	}
	return verdict(problems, "%d subjects, all refused", tried)
}

// passes tells whether the receiver gets what the sender publishes.
func passes(sender, receiver *nats.Conn, subject, listen string) bool {
	sub := must(receiver.SubscribeSync(listen))
	defer func() { _ = sub.Unsubscribe() }()
	const harmless = `{"filter":"f2.doctor.none","doctor":%q}` // purges nothing that exists, creates and changes nothing
	mark := marker()
	for _, step := range []func() error{
		receiver.Flush, func() error { return sender.Publish(subject, fmt.Appendf(nil, harmless, mark)) }, sender.Flush, receiver.Flush,
	} {
		if err := step(); !errors.Is(err, nats.ErrPermissionViolation) {
			ensure(err)
		}
	}
	for {
		m, err := sub.NextMsg(time.Millisecond)
		if err != nil {
			return false
		}
		if strings.Contains(string(m.Data), mark) {
			return true
		}
	}
}

// natsReplied returns an error if the user of secret gets no reply, or an error as the reply.
func (t *Target) natsReplied(ctx context.Context, secret, subject string) error {
	nc := t.natsUser(ctx, secret)
	reply, err := nc.Request(subject, nil, natsTimeout)
	if err != nil {
		return err
	}
	var content struct{ Error json.RawMessage }
	if err := json.Unmarshal(reply.Data, &content); err != nil {
		return err
	}
	if content.Error != nil {
		return fmt.Errorf("the reply is an error: %s", content.Error)
	}
	return nil
}

// natsReplies subscribes as the operator, in whose account the streams are, where nothing is
// stored and no other user may publish. A user who makes the server publish there could make
// it publish on a stream.
func natsReplies(ctx context.Context, t *Target) Finding {
	operator := t.natsUser(ctx, operatorNATS)
	var problems []string
	for _, c := range confinedNATS() {
		if problem := t.natsReply(ctx, operator, c); problem != "" {
			problems = append(problems, problem)
		}
	}
	return verdict(problems, "%d users, and no reply left an account", len(confinedNATS()))
}

func (t *Target) natsReply(ctx context.Context, operator *nats.Conn, c confined) (problem string) {
	const replyWait = 200 * time.Millisecond // for a reply that must not come
	nc := t.natsUser(ctx, c.secret)
	target := "f2.doctor." + marker()
	sub := must(operator.SubscribeSync(target))
	ensure(operator.Flush())
	ensure(nc.PublishRequest(c.request, target, nil))
	if _, err := nc.RequestWithContext(ctx, c.request, nil); err != nil {
		return fmt.Sprintf("%s: not tested, the user of %s got no reply: %v", c.request, c.secret, err)
	}
	if m, err := sub.NextMsg(replyWait); err == nil {
		return fmt.Sprintf("the user of %s makes the server publish on %s", c.secret, m.Subject)
	}
	const create, remove = "$JS.API.CONSUMER.CREATE.RAW.doctor", "$JS.API.CONSUMER.DELETE.RAW.doctor"
	consumer := fmt.Sprintf(`{"stream_name":"RAW","config":{"name":"doctor","deliver_subject":%q,"deliver_policy":"last","ack_policy":"none","inactive_threshold":%d}}`,
		target, 10*time.Second)
	if reply, err := nc.Request(create, []byte(consumer), replyWait); err == nil {
		_, _ = operator.RequestWithContext(ctx, remove, nil)
		return fmt.Sprintf("the user of %s makes a consumer deliver to any subject: %s", c.secret, reply.Data)
	}
	return ""
}
