package natsserver

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
	service, err := micro.AddService(nc, micro.Config{Name: name, Version: "1.0.0"})
	require.NoError(t, err)
	defer func() { assert.NoError(t, service.Stop()) }()
	require.NoError(t, nc.Flush())
	for _, user := range []string{Operator, Console} {
		asker := connect(t, s, cfg, user)
		for _, verb := range []string{"PING", "INFO", "STATS"} {
			answer, err := asker.Request("$SRV."+verb+"."+name, nil, 5*time.Second)
			require.NoError(t, err, "%s asks %s for %s", user, name, verb)
			assert.Contains(t, string(answer.Data), service.Info().ID)
		}
	}
}

// Who may publish what, and nobody else. The operator, who may everything, is
// the control that shows that a refusal is the permission's doing.
func TestPublishPermissions(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	allowed := map[string][]string{
		"f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1": {Bridge},
		"f2.decoded.e4fd45f654be.sensor-mode.1.sensor-1":  {Decoder},
		"f2.dead.bridge.bad_mac.unknown":                  {Bridge},
		"f2.dead.decoder.bad_hex.e4fd45f654be":            {Decoder},
		"f2.dead.writer.22003.e4fd45f654be":               {Writer},
		"f2.command.e4fd45f654be.alarm-mode.1.siren-1":    {Console},
		"f2.result.e4fd45f654be.alarm-mode.1.siren-1":     {Bridge},
		"f2.alarm.bridge.stream_full":                     {Bridge},
		"f2.alarm.writer.database":                        {Writer},
		"f2.alarm.registrar.clone":                        {Registrar},
		"f2.audit.revoke.e4fd45f654be":                    {Registrar},
		"f2.alarm.health.stream_full":                     {Health},
		"f2.ready.bridge":                                 {Health},
		"f2.secrets.bridge":                               {Health},
		"f2.alarms.registrar":                             {Health},
		"$SRV.STATS":                                      {Health, Console},
		"$KV.LATEST.e4fd45f654be.sensor-mode.1.sensor-1":  {Decoder},
		"f2.parked.e4fd45f654be":                          {Decoder},
		"anything.else":                                   {},
		"_INBOX_operator.abc":                             {},
		"_INBOX.abc":                                      {},
		"$SRV.PING.bridge":                                {Console},
		"$JS.API.INFO":                                    {Console},
		"$JS.API.STREAM.NAMES":                            {Console},

		"$JS.API.STREAM.CREATE.RAW":                            {},
		"$JS.API.STREAM.CREATE.DECODED":                        {},
		"$JS.API.STREAM.CREATE.KV_LATEST":                      {},
		"$JS.API.STREAM.CREATE.DEAD_LETTER":                    {},
		"$JS.API.STREAM.CREATE.OTHER":                          {},
		"$JS.API.STREAM.UPDATE.COMMANDS":                       {},
		"$JS.API.STREAM.INFO.RAW":                              {Bridge, Decoder, Keeper, Health, Console},
		"$JS.API.STREAM.INFO.DECODED":                          {Decoder, Writer, Keeper, Health, Console},
		"$JS.API.STREAM.DELETE.RAW":                            {},
		"$JS.API.STREAM.PURGE.RAW":                             {Keeper},
		"$JS.API.STREAM.PURGE.DECODED":                         {Keeper},
		"$JS.API.STREAM.PURGE.COMMANDS":                        {Keeper},
		"$JS.API.STREAM.PURGE.KV_LATEST":                       {},
		"$JS.API.STREAM.PURGE.PARKED":                          {},
		"$JS.API.STREAM.UPDATE.RAW":                            {},
		"$JS.API.CONSUMER.LIST.RAW":                            {Keeper, Console},
		"$JS.API.CONSUMER.LIST.DECODED":                        {Keeper, Console},
		"$JS.API.CONSUMER.LIST.AUDIT":                          {Console},
		"$JS.API.CONSUMER.DELETE.KV_LATEST.registrar":          {},
		"$JS.API.CONSUMER.RESET.KV_LATEST.registrar":           {Registrar},
		"$JS.API.CONSUMER.RESET.AUDIT.registrar":               {},
		"f2.alarm.keeper.stream_filling":                       {Keeper},
		"$JS.API.STREAM.PURGE.DEAD_LETTER":                     {},
		"$JS.API.STREAM.MSG.DELETE.RAW":                        {},
		"$JS.API.STREAM.MSG.GET.RAW":                           {Bridge, Console},
		"$JS.API.STREAM.MSG.GET.RESULT":                        {Bridge, Console},
		"$JS.API.STREAM.PURGE.RESULT":                          {},
		"$JS.API.STREAM.UPDATE.RESULT":                         {},
		"$JS.API.STREAM.RESTORE.RAW":                           {},
		"$JS.API.STREAM.CREATE.PARKED":                         {},
		"$JS.API.STREAM.MSG.DELETE.PARKED":                     {},
		"$JS.API.DIRECT.GET.PARKED":                            {Decoder, Console},
		"$JS.API.DIRECT.GET.KV_LATEST":                         {Decoder, Console},
		"$JS.API.DIRECT.GET.DECODED":                           {Console},
		"$JS.API.DIRECT.GET.KV_LATEST.$KV.LATEST.e4fd45f654be": {Console},

		"$JS.API.CONSUMER.CREATE.RAW.decoder":             {},
		"$JS.API.CONSUMER.DURABLE.CREATE.RAW.decoder":     {},
		"$JS.API.CONSUMER.CREATE.RAW.decoder.f2.raw.tele": {},
		"$JS.API.CONSUMER.CREATE.RAW.other":               {Console},
		"$JS.API.CONSUMER.CREATE.DECODED.writer":          {},
		"$JS.API.CONSUMER.CREATE.COMMANDS.bridge":         {},
		"$JS.API.CONSUMER.INFO.RAW.decoder":               {Decoder, Health, Console},
		"$JS.API.CONSUMER.DELETE.RAW.decoder":             {},
		"$JS.API.CONSUMER.DELETE.DECODED.writer":          {},
		"$JS.API.CONSUMER.DELETE.DECODED.tail":            {Console},
		"$JS.API.CONSUMER.PAUSE.RAW.decoder":              {},
		"$JS.API.CONSUMER.RESET.RAW.decoder":              {Decoder},
		"$JS.API.CONSUMER.RESET.DECODED.writer":           {Writer},
		"$JS.API.CONSUMER.RESET.COMMANDS.bridge":          {Bridge},
		"$JS.API.CONSUMER.CREATE.RESULT.registrar":        {},
		"$JS.API.CONSUMER.MSG.NEXT.RESULT.registrar":      {Registrar},
		"$JS.API.CONSUMER.DELETE.RESULT.registrar":        {},
		"$JS.API.CONSUMER.CREATE.RESULT.other":            {Console},
		"$JS.API.CONSUMER.MSG.NEXT.RAW.decoder":           {Decoder},
		"$JS.API.CONSUMER.MSG.NEXT.DECODED.writer":        {Writer},
		"$JS.API.CONSUMER.MSG.NEXT.COMMANDS.bridge":       {Bridge},
		"$JS.API.CONSUMER.MSG.NEXT.DECODED.tail":          {Console},
		"$JS.API.STREAM.CREATE.AUDIT":                     {},
		"$JS.API.STREAM.UPDATE.AUDIT":                     {},
		"$JS.API.STREAM.RESTORE.AUDIT":                    {},
		"$JS.API.STREAM.DELETE.AUDIT":                     {},
		"$JS.API.STREAM.PURGE.AUDIT":                      {},
		"$JS.API.STREAM.MSG.DELETE.AUDIT":                 {},
		"$JS.API.CONSUMER.CREATE.AUDIT.registrar":         {},
		"$JS.API.CONSUMER.CREATE.AUDIT.other":             {Console},
		"$JS.API.CONSUMER.DELETE.AUDIT.registrar":         {},
		"$JS.API.CONSUMER.CREATE.KV_LATEST.registrar":     {},
		"$JS.API.CONSUMER.MSG.NEXT.KV_LATEST.registrar":   {Registrar},
		"$JS.API.CONSUMER.MSG.NEXT.KV_LATEST.other":       {Console},
		"$JS.ACK.AUDIT.registrar.1.1.1.1.1":               {Registrar},
		"$JS.ACK.RAW.decoder.1.1.1.1.1":                   {Decoder},
		"$JS.ACK.DECODED.writer.1.1.1.1.1":                {Writer},
		"$JS.ACK.COMMANDS.bridge.1.1.1.1.1":               {Bridge},
	}
	for _, user := range []string{Bridge, Decoder, Writer, Registrar, Keeper, Health, Console, Operator} {
		nc := connect(t, s, cfg, user, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		for subject, users := range allowed {
			want := user == Operator
			for _, name := range users {
				want = want || name == user
			}
			assert.Equal(t, want, mayPublish(t, nc, subject), "%s publishes %s", user, subject)
		}
	}
}

func mayPublish(t *testing.T, nc *nats.Conn, subject string) bool {
	t.Helper()
	require.NoError(t, nc.Publish(subject, nil))
	require.NoError(t, nc.Flush()) // a refusal comes before the answer to this
	return !violated(nc, subject)
}

// violated reports whether the last refusal was for this subject.
func violated(nc *nats.Conn, subject string) bool {
	err := nc.LastError()
	return errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+subject+`"`)
}

func TestSubscribePermissions(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	services := []string{Bridge, Decoder, Writer, Registrar, Keeper, Health}
	allowed := map[string][]string{
		"_INBOX_bridge.abc":   {Bridge},
		"_INBOX_bridge.>":     {Bridge},
		"_INBOX_decoder.>":    {Decoder},
		"_INBOX_registrar.>":  {Registrar},
		"_INBOX_keeper.>":     {Keeper},
		"_INBOX_health.>":     {Health},
		"_INBOX_operator.>":   {},
		"_INBOX.>":            {},
		">":                   {},
		"f2.audit.>":          {Console},
		"f2.raw.>":            {Console},
		"f2.decoded.>":        {Console},
		"f2.command.>":        {Console},
		"f2.result.>":         {Console},
		"f2.alarms.registrar": {Registrar, Console},
		"f2.alarms.health":    {Health, Console},
		"f2.alarms.writer":    {Writer, Console},
		"$SRV.PING":           services,
		"$SRV.INFO.bridge.ID": services,
		"$JS.API.>":           {},
		"$JS.ACK.>":           {},
		"$SYS.>":              {},
	}
	for _, user := range []string{Bridge, Decoder, Writer, Registrar, Keeper, Health, Console, Operator} {
		nc := connect(t, s, cfg, user, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		for subject, users := range allowed {
			want := user == Operator
			for _, name := range users {
				want = want || name == user
			}
			sub, err := nc.SubscribeSync(subject)
			require.NoError(t, err)
			require.NoError(t, nc.Flush())
			assert.Equal(t, want, !violated(nc, subject), "%s subscribes to %s", user, subject)
			_ = sub.Unsubscribe() // refused ones are gone already
		}
	}
}

// The console reads streams with consumers of its own.
func TestConsoleReads(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	operator := declare(t, s, cfg)
	for _, subject := range []string{"f2.decoded.", "$KV.LATEST."} {
		_, err := operator.Publish(t.Context(), subject+"e4fd45f654be.sensor-mode.1.sensor-1", []byte("25.52"))
		require.NoError(t, err)
	}

	console, err := jetstream.New(connect(t, s, cfg, Console))
	require.NoError(t, err)
	consumer, err := console.OrderedConsumer(t.Context(), "DECODED", jetstream.OrderedConsumerConfig{})
	require.NoError(t, err)
	message, err := consumer.Next(jetstream.FetchMaxWait(5 * time.Second))
	require.NoError(t, err)
	assert.Equal(t, "25.52", string(message.Data()))

	bucket, err := console.KeyValue(t.Context(), "LATEST")
	require.NoError(t, err)
	watcher, err := bucket.WatchAll(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, watcher.Stop()) }()
	for update := range watcher.Updates() {
		if update != nil {
			assert.Equal(t, "e4fd45f654be.sensor-mode.1.sensor-1", update.Key())
			break
		}
	}
	_, err = bucket.Put(t.Context(), "e4fd45f654be.sensor-mode.1.sensor-1", []byte("forged"))
	require.Error(t, err)
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
	require.Error(t, err)
	assert.True(t, violated(nc, "$JS.API.STREAM.UPDATE.AUDIT"))
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
