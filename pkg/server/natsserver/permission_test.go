package natsserver

import (
	"encoding/json"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/synadia-io/orbit.go/jetstreamext"

	conf "github.com/f2mesh/f2mesh/nats"
)

// streamConfig reads nats/stream_<name>.json.
func streamConfig(t *testing.T, name string) (cfg jetstream.StreamConfig) {
	t.Helper()
	unmarshal(t, "stream_"+name+".json", &cfg)
	return cfg
}

func unmarshal(t *testing.T, name string, into any) {
	t.Helper()
	text, err := conf.Files.ReadFile(name)
	require.NoError(t, err)
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(into), name)
}

// declare creates all streams and consumers as the operator.
func declare(t *testing.T, s *Server, cfg Config) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(connect(t, s, cfg, Operator))
	require.NoError(t, err)
	names, err := fs.Glob(conf.Files, "stream_*.json")
	require.NoError(t, err)
	for _, name := range names {
		var stream jetstream.StreamConfig
		unmarshal(t, name, &stream)
		require.NotEmpty(t, stream.Description, name)
		_, err := js.CreateStream(t.Context(), stream)
		require.NoError(t, err, name)
	}
	names, err = fs.Glob(conf.Files, "consumer_*.json")
	require.NoError(t, err)
	for _, name := range names {
		var consumer jetstream.ConsumerConfig
		unmarshal(t, name, &consumer)
		require.NotEmpty(t, consumer.Description, name)
		stream := strings.TrimSuffix(strings.TrimPrefix(name, "consumer_"), "_"+consumer.Durable+".json")
		_, err := js.CreateConsumer(t.Context(), streamConfig(t, stream).Name, consumer)
		require.NoError(t, err, name)
	}
	return js
}

// A service's whole work, with nothing but its own user.
func TestServicesCanDoTheirWork(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	work := []struct {
		user     string
		publish  []string
		stream   string // what it consumes
		consumer string
	}{
		{Bridge, []string{
			"f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1", "f2.dead.bridge.bad_mac.unknown", "f2.result.e4fd45f654be.alarm-mode.1.siren-1",
		}, "COMMANDS", Bridge},
		{Decoder, []string{
			"f2.decoded.e4fd45f654be.sensor-mode.1.sensor-1", "f2.dead.decoder.bad_hex.e4fd45f654be",
			"f2.parked.e4fd45f654be", "$KV.LATEST.e4fd45f654be.sensor-mode.1.sensor-1",
		}, "RAW", Decoder},
		{Writer, []string{
			"f2.dead.writer.22003.e4fd45f654be",
		}, "DECODED", Writer},
		{Registrar, []string{
			"f2.audit.issue.e4fd45f654be",
		}, "AUDIT", Registrar},
	}
	declare(t, s, cfg)
	console, err := jetstream.New(connect(t, s, cfg, Console))
	require.NoError(t, err)
	for i, part := range work {
		nc := connect(t, s, cfg, part.user, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			assert.NoError(t, err, part.user)
		}))
		js, err := jetstream.New(nc)
		require.NoError(t, err)
		for _, subject := range part.publish {
			_, err := js.Publish(t.Context(), subject, []byte("{}"))
			require.NoError(t, err, "%s publishes %s", part.user, subject)
		}
		if i == 0 {
			_, err := console.Publish(t.Context(), "f2.command.e4fd45f654be.access-control-mode.1.strike-1", []byte("{}"))
			require.NoError(t, err)
		}
		consume(t, js, part.stream, part.consumer)
		require.NoError(t, nc.Publish("f2.alarm."+part.user+".stream_full", []byte("{}")))
		answersMicro(t, s, cfg, nc, part.user)
	}
}

// consume opens the durable, pulls one message by Fetch and acknowledges it.
func consume(t *testing.T, js jetstream.JetStream, stream, name string) {
	t.Helper()
	consumer, err := js.Consumer(t.Context(), stream, name)
	require.NoError(t, err)
	batch, err := consumer.Fetch(1, jetstream.FetchMaxWait(5*time.Second))
	require.NoError(t, err)
	message, ok := <-batch.Messages()
	require.True(t, ok, "%s/%s: %v", stream, name, batch.Error())
	require.NoError(t, message.InProgress())
	require.NoError(t, message.DoubleAck(t.Context()))
	info, err := consumer.Info(t.Context())
	require.NoError(t, err)
	assert.Zero(t, info.NumAckPending)
}

// answersMicro registers the service and asks for it as `nats micro ls` does.
func answersMicro(t *testing.T, s *Server, cfg Config, nc *nats.Conn, name string) {
	t.Helper()
	service, err := micro.AddService(nc, micro.Config{Name: "f2mesh-" + name, Version: "1.0.0"})
	require.NoError(t, err)
	defer func() { assert.NoError(t, service.Stop()) }()
	require.NoError(t, nc.Flush())
	for _, user := range []string{Operator, Console} {
		asker := connect(t, s, cfg, user)
		for _, verb := range []string{"PING", "INFO", "STATS"} {
			answer, err := asker.Request("$SRV."+verb+".f2mesh-"+name, nil, 5*time.Second)
			require.NoError(t, err, "%s asks %s for %s", user, name, verb)
			assert.Contains(t, string(answer.Data), service.Info().ID)
		}
	}
}

// The console reads what is stored, and hears what is published from here on.
func TestConsoleReads(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	operator := declare(t, s, cfg)
	const place = "e4fd45f654be.sensor-mode.1.sensor-1"
	nc := connect(t, s, cfg, Console)
	heard, err := nc.SubscribeSync("f2.>")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	decoder, err := jetstream.New(connect(t, s, cfg, Decoder))
	require.NoError(t, err)
	for _, subject := range []string{"f2.decoded.", "$KV.LATEST."} {
		for _, value := range []string{"25.52", "25.53"} {
			_, err := decoder.Publish(t.Context(), subject+place, []byte(value))
			require.NoError(t, err)
		}
	}
	_, err = operator.Publish(t.Context(), "f2.audit.issue.e4fd45f654be", []byte("{}"))
	require.NoError(t, err)
	for _, subject := range []string{"f2.decoded." + place, "f2.decoded." + place, "f2.audit.issue.e4fd45f654be"} {
		m, err := heard.NextMsg(5 * time.Second)
		require.NoError(t, err)
		assert.Equal(t, subject, m.Subject)
	}

	console, err := jetstream.New(nc)
	require.NoError(t, err)
	batch, err := jetstreamext.GetBatch(t.Context(), console, "DECODED", 10, jetstreamext.GetBatchSeq(1))
	require.NoError(t, err)
	var values []string
	for m, err := range batch {
		require.NoError(t, err)
		values = append(values, string(m.Data))
	}
	assert.Equal(t, []string{"25.52", "25.53"}, values)
	bucket, err := console.KeyValue(t.Context(), "LATEST")
	require.NoError(t, err)
	last, err := bucket.Get(t.Context(), place)
	require.NoError(t, err)
	assert.Equal(t, "25.53", string(last.Value()))
	_, err = bucket.Put(t.Context(), place, []byte("forged"))
	require.Error(t, err)
	names := console.StreamNames(t.Context())
	for range names.Name() {
	}
	require.NoError(t, names.Err())
}

// Nobody, the operator included, takes anything out of the audit trail.
func TestAuditIsOnlyAddedTo(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	operator := declare(t, s, cfg)
	ack, err := operator.Publish(t.Context(), "f2.audit.issue.e4fd45f654be", []byte("{}"))
	require.NoError(t, err)
	_, err = operator.Publish(t.Context(), "f2.decoded.e4fd45f654be.sensor-mode.1.sensor-1", []byte("{}"))
	require.NoError(t, err)
	for name, refused := range map[string]bool{"AUDIT": true, "DECODED": false} { // the second is the control
		stream, err := operator.Stream(t.Context(), name)
		require.NoError(t, err)
		deletion, purge := stream.DeleteMsg(t.Context(), ack.Sequence), stream.Purge(t.Context())
		if refused {
			require.Error(t, deletion, name)
			require.Error(t, purge, name)
			weaker := stream.CachedInfo().Config
			weaker.DenyDelete, weaker.DenyPurge = false, false
			_, err = operator.UpdateStream(t.Context(), weaker)
			require.Error(t, err, "nor is it made so that one could")
		} else {
			require.NoError(t, deletion, name)
			require.NoError(t, purge, name)
		}
	}
}

// The registrar's password does not shorten the audit trail.
func TestRegistrarCannotShrinkAudit(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	operator := declare(t, s, cfg)
	for range 3 {
		_, err := operator.Publish(t.Context(), "f2.audit.issue.e4fd45f654be", []byte("{}"))
		require.NoError(t, err)
	}
	kept := func() (uint64, jetstream.StreamConfig) {
		audit, err := operator.Stream(t.Context(), "AUDIT")
		require.NoError(t, err)
		return audit.CachedInfo().State.Msgs, audit.CachedInfo().Config
	}
	_, before := kept()
	smaller := before
	smaller.MaxMsgs, smaller.MaxAge, smaller.Discard = 1, time.Hour, jetstream.DiscardOld

	nc := connect(t, s, cfg, Registrar, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	request, err := json.Marshal(smaller)
	require.NoError(t, err)
	_, err = nc.Request("$JS.API.STREAM.UPDATE.AUDIT", request, time.Second)
	require.ErrorIs(t, err, nats.ErrNoResponders)
	registrar, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = registrar.CreateStream(t.Context(), smaller)
	require.Error(t, err, "nor by making it again")
	n, after := kept()
	assert.Equal(t, before, after)
	assert.EqualValues(t, 3, n)

	_, err = operator.UpdateStream(t.Context(), smaller)
	require.NoError(t, err, "the control: it would have worked")
	n, _ = kept()
	assert.EqualValues(t, 1, n)
}
