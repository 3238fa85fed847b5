package registrar

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Each outcome of a command is one entry, also where its message comes again.
func TestRecordOutcomes(t *testing.T) {
	t.Parallel()
	trail := NewTrail(auditPool(t))
	cfg := natsservertest.Config(t)
	server := natsservertest.Start(t, cfg)
	log := slog.New(slog.DiscardHandler)
	connect := func(user string) *stream.Client {
		nc, err := stream.Connect(stream.Config{URL: server.URL(), CAFile: cfg.CAFile}, user, secrettest.Credential(user, natsservertest.Password(user)), log)
		require.NoError(t, err)
		t.Cleanup(func() { natsservertest.Close(nc) })
		require.NoError(t, stream.WaitConnected(t.Context(), nc))
		streams, err := stream.NewClient(nc, natsfiles.Files, log)
		require.NoError(t, err)
		return streams
	}
	operator, registrar := connect(natsserver.Operator), connect(natsserver.Registrar)
	_, err := operator.SetUp(t.Context(), stream.Sizes{}, false)
	require.NoError(t, err)
	issued := time.Now().UTC().Truncate(time.Microsecond)
	const strike = "f2.command.e4fd45f654be.access-control-mode.3.strike-1"
	put := func(m *nats.Msg) {
		_, err := operator.JetStream().PublishMsg(t.Context(), m)
		require.NoError(t, err)
	}
	for i, r := range []outcome.Result{
		{Sequence: 1, Command: strike, Outcome: outcome.Sent, Issued: issued, At: issued},
		{Sequence: 1, ID: "a\nb", Command: strike, Outcome: outcome.Confirmed, Issued: issued, At: issued, State: []byte(`{"status":true}`)},
		{Command: strike, Person: "vera", Outcome: outcome.Refused, Detail: "vera is a viewer", Issued: issued, At: issued},
		{Sequence: 2, Command: "f2.command.nonsense", Outcome: outcome.Refused, Detail: "why", Issued: issued, At: issued},
	} {
		m, err := r.Msg()
		require.NoError(t, err, i)
		put(m)
	}
	put(&nats.Msg{Subject: "f2.result.nonsense", Data: []byte("?"), Header: nats.Header{}})

	for range 2 { // the second time all comes again
		_, err := operator.Consumer(t.Context(), stream.Result, resultConsumer)
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- trail.RecordOutcomes(ctx, registrar, log) }()
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			consumer, err := operator.JetStream().Consumer(t.Context(), stream.Result, resultConsumer)
			require.NoError(c, err)
			assert.EqualValues(c, 5, consumer.CachedInfo().AckFloor.Stream)
		}, time.Minute, 20*time.Millisecond)
		events, err := trail.Since(t.Context(), time.Time{}, "", 10)
		require.NoError(t, err)
		require.Len(t, events, 3)
		assert.Equal(t, Event{
			Time: issued, Actor: "bridge", Action: CommandAction, MAC: "e4fd45f654be",
			Detail: `strike-1 of connector 3 in access-control-mode: confirmed, id "a\nb"`,
		}, Event{Time: events[0].Time.UTC(), Actor: events[0].Actor, Action: events[0].Action, MAC: events[0].MAC, Detail: events[0].Detail})
		assert.Equal(t, "vera", events[1].Actor)
		assert.Equal(t, "strike-1 of connector 3 in access-control-mode: refused: vera is a viewer", events[1].Detail)
		assert.Equal(t, "command 2: refused: why", events[2].Detail)
		require.NoError(t, operator.JetStream().DeleteConsumer(t.Context(), stream.Result, resultConsumer))
		if err := <-done; !errors.Is(err, stream.ErrConsumerGone) {
			require.NoError(t, err)
		}
		stop()
	}
}
