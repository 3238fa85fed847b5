package natsserver

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// requests are some for which the server or a service sends something to the reply
// subject: what is stored, an acknowledgement, a status without content, an answer.
func requests() map[string]map[string]string {
	const place = "e4fd45f654be.sensor-mode.1.sensor-1"
	const missing = `{"last_by_subj":"f2.none"}`
	return map[string]map[string]string{
		Bridge: {
			"f2.raw.tele." + place: "{}", "f2.result." + place: "{}", "f2.dead.bridge.reason.e4fd45f654be": "{}",
			"$JS.API.STREAM.INFO.RAW": "", "$JS.API.STREAM.MSG.GET.RAW": missing,
			"$JS.API.DIRECT.GET.DEAD_LETTER.f2.dead.bridge.none": "",
			"$JS.API.CONSUMER.MSG.NEXT.COMMANDS.bridge":          `{"batch":1,"no_wait":true}`,
		},
		Decoder: {
			"f2.decoded." + place: "{}", "$KV.LATEST." + place: "{}", "f2.parked.e4fd45f654be": "{}",
			"$JS.API.DIRECT.GET.KV_LATEST": missing, "$JS.API.CONSUMER.MSG.NEXT.RAW.decoder": `{"batch":1,"no_wait":true}`,
		},
		Writer: {
			"f2.dead.writer.reason.e4fd45f654be": "{}", "$JS.API.DIRECT.GET.DEAD_LETTER.f2.dead.writer.reason.e4fd45f654be": "",
			"$JS.API.CONSUMER.INFO.DECODED.writer": "", "$JS.API.CONSUMER.MSG.NEXT.DECODED.writer": `{"batch":1,"no_wait":true}`,
		},
		Registrar: {
			"f2.audit.issue.e4fd45f654be": "{}", "$JS.API.STREAM.INFO.AUDIT": "",
			"$JS.API.CONSUMER.MSG.NEXT.RESULT.registrar": `{"batch":1,"no_wait":true}`,
		},
		Keeper: {"$JS.API.STREAM.INFO.RAW": "", "$JS.API.CONSUMER.LIST.RAW": ""},
		Health: {"$JS.API.STREAM.INFO.RAW": "", "f2.ready.bridge": "", "$SRV.STATS.f2mesh-bridge": ""},
		Console: {
			"f2.command." + place: "{}", "$JS.API.STREAM.INFO.AUDIT": "", "$JS.API.STREAM.MSG.GET.DEAD_LETTER": `{"seq":1}`,
			"$JS.API.DIRECT.GET.DEAD_LETTER": `{"seq":1}`, "$JS.API.DIRECT.GET.RAW": missing,
			"$JS.API.STREAM.NAMES": "", "$SRV.PING": "", "$SRV.PING.f2mesh-bridge": "",
		},
	}
}

// targets are reply subjects with which a request would forge, remove or acknowledge
// something, and the user that may publish there.
func targets() map[string]string {
	const place = "e4fd45f654be.sensor-mode.1.forged"
	return map[string]string{
		"f2.audit.forged": Registrar, "f2.decoded." + place: Decoder, "f2.raw.tele." + place: Bridge, "f2.result." + place: Bridge,
		"f2.command." + place: Console, "f2.parked.forged": Decoder, "f2.dead.writer.forged.e4fd45f654be": Writer,
		"f2.alarm.health.forged": Health, "f2.ready.decoder": Health, "$KV.LATEST." + place: Decoder,
		"$JS.API.STREAM.DELETE.PARKED": "", "$JS.API.STREAM.PURGE.RESULT": "", "$JS.API.STREAM.PURGE.RAW": Keeper, "$JS.API.STREAM.UPDATE.RAW": "",
		"$JS.API.CONSUMER.DELETE.RAW.decoder": "", "$JS.ACK.RAW.decoder.1.1.1.1.1": Decoder, "_INBOX_operator.forged": "", "_INBOX.forged": "",
	}
}

// TestRepliesStayInTheirAccount has every user ask what it may with reply subjects that
// are not its own. What is sent there must reach neither the account of the streams nor
// another user. The controls: the answers to the same requests reach the user's own
// inbox, and for whoever is in the account of the streams all that would be published.
func TestRepliesStayInTheirAccount(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Log = slog.New(slog.DiscardHandler) // it tells of each reply subject in $JS.ACK
	s := startServer(t, cfg)
	declare(t, s, cfg)
	bridge := connect(t, s, cfg, Bridge)
	service, err := micro.AddService(bridge, micro.Config{Name: "f2mesh-bridge", Version: "1.0.0"})
	require.NoError(t, err)
	answer := micro.HandlerFunc(func(r micro.Request) { _ = r.Respond([]byte("{}")) })
	require.NoError(t, service.AddEndpoint("ready", answer, micro.WithEndpointSubject("f2.ready.bridge")))
	require.NoError(t, bridge.Flush())
	taps := map[string]*nats.Subscription{}
	for _, user := range Users() {
		taps[user] = listen(t, connect(t, s, cfg, user))
	}
	delete(taps, Sys) // where JetStream is asked
	for user, all := range requests() {
		nc := connect(t, s, cfg, user, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		for request, body := range all {
			for target, owner := range targets() {
				if owner != user {
					require.NoError(t, nc.PublishRequest(request, target, []byte(body)))
				}
			}
			_, err := nc.Request(request, []byte(body), 5*time.Second) // behind the others
			require.NoError(t, err, "the control: %s asks %s", user, request)
		}
		time.Sleep(100 * time.Millisecond) // JetStream answers from several goroutines
		for listener, tap := range taps {
			for _, subject := range received(t, tap) {
				if _, forged := targets()[subject]; listener != user {
					assert.False(t, forged, "%s had something published on %s, %s received it", user, subject, listener)
				}
			}
		}
	}

	operator := connect(t, s, cfg, Operator)
	for _, target := range []string{"f2.audit.forged", "_INBOX.forged"} {
		require.NoError(t, operator.PublishRequest("$JS.API.DIRECT.GET.DEAD_LETTER", target, []byte(`{"seq":1}`)))
		require.Eventually(t, func() bool { return slices.Contains(received(t, taps[Operator]), target) }, 5*time.Second, 10*time.Millisecond,
			"the control: in the account of the streams %s is published", target)
	}
}

func listen(t *testing.T, nc *nats.Conn) *nats.Subscription {
	t.Helper()
	tap, err := nc.SubscribeSync(">")
	require.NoError(t, err)
	require.NoError(t, tap.SetPendingLimits(-1, -1))
	require.NoError(t, nc.Flush())
	return tap
}

// received are the subjects of what has come.
func received(t *testing.T, tap *nats.Subscription) (subjects []string) {
	t.Helper()
	for n, _, _ := tap.Pending(); n > 0; n-- {
		m, err := tap.NextMsg(0)
		require.NoError(t, err)
		subjects = append(subjects, m.Subject)
	}
	return subjects
}

// TestNobodyAnswersForAnother has a service that answers to each question as another.
func TestNobodyAnswersForAnother(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	writer := connect(t, s, cfg, Writer)
	for _, subject := range []string{"$SRV.>", "f2.>"} {
		_, err := writer.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond([]byte(`{"name":"f2mesh-bridge"}`)) })
		require.NoError(t, err)
	}
	require.NoError(t, writer.Flush())
	for _, user := range []string{Operator, Console, Health} {
		nc := connect(t, s, cfg, user)
		for _, subject := range []string{"$SRV.STATS.f2mesh-bridge", "f2.ready.bridge", "f2.secrets.bridge"} {
			_, err := nc.Request(subject, nil, 5*time.Second)
			require.ErrorIs(t, err, nats.ErrNoResponders, "%s asks %s", user, subject)
		}
		_, err := nc.Request("$SRV.STATS.f2mesh-writer", nil, 5*time.Second)
		require.NoError(t, err, "the control: %s asks the writer itself", user)
	}
}
