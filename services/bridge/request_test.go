package bridge

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	operate "github.com/f2mesh/f2mesh/pkg/operate/command"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// TestRequests: each request for a command has a reply, also if the bridge stops, and the
// bridge works without a valid access file.
func TestRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	path := filepath.Join(t.TempDir(), access.FileName)
	require.NoError(t, os.WriteFile(path, []byte("people: 7"), 0o600))
	l := r.start(t, func(cfg *Config, _ *life) { cfg.AccessFile, cfg.CommandMaxAge = path, time.Minute }).ready(t)
	nc := r.connect(t, natsserver.Console, r.server.URL()).JetStream().Conn()
	require.NoError(t, stream.WaitConnected(t.Context(), nc))
	const strike = "f2.do.e4fd45f654be.access-control-mode.3.strike-1"
	request := func(subject, body string, header nats.Header) *nats.Msg {
		if header == nil {
			header = nats.Header{}
		}
		header[outcome.HeaderPerson] = []string{"olga"}
		reply, err := nc.RequestMsg(&nats.Msg{Subject: subject, Data: []byte(body), Header: header}, patience)
		if err != nil {
			t.Error(err)
			return &nats.Msg{}
		}
		return reply
	}
	outcomeOf := func(m *nats.Msg) (a operate.Answer) {
		t.Helper()
		require.Empty(t, m.Header.Get(micro.ErrorHeader))
		require.NoError(t, json.Unmarshal(m.Data, &a))
		return a
	}
	require.Eventually(t, func() bool { // until the bridge is subscribed nobody replies
		_, err := nc.Request(strike, nil, patience)
		return err == nil
	}, patience, 10*time.Millisecond)
	a := outcomeOf(request(strike, `{"power-flag":1}`, nil))
	assert.Equal(t, outcome.Refused, a.Outcome)
	assert.Contains(t, a.Detail, "olga is not in the access file")

	require.NoError(t, os.WriteFile(path, []byte("people: [{name: olga, role: operator, may: [{controllers: ['*']}]}]"), 0o600))
	a = outcomeOf(request(strike, `{"explode":1}`, nil))
	assert.Equal(t, outcome.Refused, a.Outcome)
	assert.Positive(t, a.Issued.Unix())
	assert.NotContains(t, a.Detail, "access file", "the control: the bridge itself refuses it")
	assert.Equal(t, "400", request("f2.do.nonsense", "", nil).Header.Get(micro.ErrorCodeHeader))
	assert.Equal(t, "400", request(strike, "", nats.Header{outcome.HeaderWait: {"perhaps"}}).Header.Get(micro.ErrorCodeHeader))
	assert.Equal(t, "500", request(strike, "", nats.Header{nats.MsgIdHdr: {"two words"}}).Header.Get(micro.ErrorCodeHeader))

	// The controller never comes. Who waits while the bridge stops is told so.
	waiting := make(chan *nats.Msg)
	go func() { waiting <- request(strike, `{"power-flag":1}`, nats.Header{nats.MsgIdHdr: {"mine"}}) }()
	require.Eventually(t, func() bool {
		m, err := r.operator.Message(t.Context(), stream.Result, stream.Query{Last: outcome.Subject("f2.command." + strike[len(requestPrefix):])})
		return err == nil && m.Header.Get(outcome.HeaderOutcome) == string(outcome.Sent)
	}, patience, 10*time.Millisecond)
	l.stop(t)
	m := <-waiting
	assert.Equal(t, "504", m.Header.Get(micro.ErrorCodeHeader))
	assert.Contains(t, string(m.Data), "mine")
}
