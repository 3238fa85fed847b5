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
	client, _ := NewClientAs(tb, natsserver.Operator)
	return client
}

// NewClientAs is NewClient and, on the same server, the client of a user, with the rights
// that it has in a mesh.
func NewClientAs(tb testing.TB, user string) (operator, as *stream.Client) {
	tb.Helper()
	server := natsservertest.Start(tb, natsservertest.Config(tb))
	operator = Connect(tb, server, natsserver.Operator)
	_, err := operator.SetUp(tb.Context(), stream.Sizes{}, false)
	require.NoError(tb, err)
	if user == natsserver.Operator {
		return operator, operator
	}
	return operator, Connect(tb, server, user)
}

// NewEmptyClient is NewClient without streams.
func NewEmptyClient(tb testing.TB) *stream.Client {
	tb.Helper()
	return Connect(tb, natsservertest.Start(tb, natsservertest.Config(tb)), natsserver.Operator)
}

// Connect is a user's way to a server, with the rights that it has in a mesh.
func Connect(tb testing.TB, server *natsserver.Server, user string) *stream.Client {
	tb.Helper()
	log := slog.New(slog.DiscardHandler)
	nc, err := stream.Connect(stream.Config{InProcess: server.InProcess()}, user, secrettest.Credential(user, natsservertest.Password(user)), log)
	require.NoError(tb, err)
	tb.Cleanup(func() { natsservertest.Close(nc) })
	require.NoError(tb, stream.WaitConnected(tb.Context(), nc))
	client, err := stream.NewClient(nc, natsfiles.Files, log)
	require.NoError(tb, err)
	return client
}
