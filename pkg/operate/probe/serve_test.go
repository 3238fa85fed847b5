package probe_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

// Who asks learns whether something was certainly not done.
func TestServe(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	nc, err := nats.Connect("", nats.InProcessServer(server.InProcess()), nats.UserInfo(natsserver.Operator, natsservertest.Password(natsserver.Operator)),
		nats.CustomInboxPrefix(natsserver.InboxPrefix(natsserver.Operator)))
	require.NoError(t, err)
	t.Cleanup(func() { natsservertest.Close(nc) })
	const timeout = 100 * time.Millisecond
	require.NoError(t, probe.Serve(t.Context(), nc, "test", "f2.test", timeout, func(ctx context.Context, data []byte) (any, error) {
		switch string(data) {
		case "refused":
			return nil, probe.RefusedError{Err: errors.New("no")}
		case "failed":
			return nil, errors.New("perhaps")
		case "late":
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return map[string]string{"said": string(data)}, nil
	}))
	for data, want := range map[string]struct{ code, problem, reply string }{
		"hello":   {"", "", `{"said":"hello"}`},
		"refused": {"400", "no", ""},
		"failed":  {"500", "perhaps", ""},
		"late":    {"500", context.DeadlineExceeded.Error(), ""},
	} {
		reply, err := nc.Request("f2.test", []byte(data), time.Minute)
		require.NoError(t, err)
		assert.Equal(t, want.code, reply.Header.Get(micro.ErrorCodeHeader), data)
		assert.Equal(t, want.problem, reply.Header.Get(micro.ErrorHeader), data)
		assert.Equal(t, want.reply, string(reply.Data), data)
	}
}
