// Package streamtest gives tests real streams of their own.
package streamtest

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// NewClient is the operator's way to a NATS server that lasts as long as the
// test, with all streams and consumers.
func NewClient(tb testing.TB) *stream.Client {
	tb.Helper()
	client := NewEmptyClient(tb)
	_, err := client.SetUp(tb.Context(), stream.Sizes{}, false)
	require.NoError(tb, err)
	return client
}

// NewEmptyClient is NewClient without streams.
func NewEmptyClient(tb testing.TB) *stream.Client {
	tb.Helper()
	server, log := natsservertest.Start(tb, natsservertest.Config(tb)), slog.New(slog.DiscardHandler)
	nc, err := stream.Connect(stream.Config{InProcess: server.InProcess()}, natsserver.Operator,
		secrettest.Credential(natsserver.Operator, natsservertest.Password(natsserver.Operator)), log)
	require.NoError(tb, err)
	tb.Cleanup(func() { natsservertest.Close(nc) })
	require.NoError(tb, stream.WaitConnected(tb.Context(), nc))
	client, err := stream.NewClient(nc, natsfiles.Files, log)
	require.NoError(tb, err)
	return client
}
