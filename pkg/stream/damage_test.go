package stream

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

const (
	hadStored  = 20 // messages that RAW had
	hadDecoded = 15 // of which so many were decoded
	survive    = 9  // and so many are left
)

// endless is a mesh whose RAW has lost its end: a flipped bit, and a crash.
type endless struct {
	operator, bridge *Client
	appender         *Appender // which stored what RAW had
	cfg              natsserver.Config
	server           *natsserver.Server
}

func newEndless(t *testing.T) *endless {
	t.Helper()
	e := &endless{cfg: natsservertest.Config(t)}
	e.server = natsservertest.Start(t, e.cfg)
	e.cfg.Port = e.server.Port()
	at := Config{URL: e.server.URL(), CAFile: e.cfg.CAFile}
	e.operator, _ = newClient(t, at, natsserver.Operator, natsfiles.Files)
	e.bridge, _ = newClient(t, at, natsserver.Bridge, natsfiles.Files)
	_, err := e.operator.SetUp(t.Context(), Sizes{}, false)
	require.NoError(t, err)
	e.appender, err = e.bridge.OpenAppender(t.Context(), Raw)
	require.NoError(t, err)
	_, err = e.appender.Append(t.Context(), withoutIDs("f2.raw.test", 100, 100+hadStored))
	require.NoError(t, err)
	raw, err := e.operator.Info(t.Context(), Raw)
	require.NoError(t, err)
	for _, place := range []uint64{hadDecoded, hadDecoded - 3} { // out of order, as after PARKED
		d := event.Decoded{ID: event.PlaceID(Incarnation(raw), place)}
		_, err = e.operator.Store(t.Context(), Decoded, []*nats.Msg{{Subject: "f2.decoded.e4fd45f654be.sensor-mode.1.sensor-1", Header: nats.Header{}, Data: d.AppendJSON(nil)}})
		require.NoError(t, err)
	}

	natsservertest.Stop(t, e.server)
	messages := filepath.Join(e.cfg.Dir, "streams", "jetstream", "F2", "streams", Raw, "msgs")
	require.NoError(t, os.Remove(filepath.Join(messages, "index.db")))
	block, err := os.ReadFile(filepath.Join(messages, "1.blk"))
	require.NoError(t, err)
	block[contentAt(t, block, "109")] ^= 0x10 // the first that is lost
	require.NoError(t, os.WriteFile(filepath.Join(messages, "1.blk"), block, 0o600))
	e.start(t)
	assert.EqualValues(t, survive, e.last(t))
	return e
}

// contentAt finds a message's content, which follows its headers. A checksum may look like it.
func contentAt(t *testing.T, block []byte, content string) int {
	t.Helper()
	const endOfHeaders = "\r\n\r\n"
	at := bytes.Index(block, []byte(endOfHeaders+content))
	require.Positive(t, at)
	return at + len(endOfHeaders)
}

func (e *endless) start(t *testing.T) {
	t.Helper()
	e.server = natsservertest.Start(t, e.cfg)
	for _, c := range []*Client{e.operator, e.bridge} {
		require.NoError(t, WaitConnected(t.Context(), c.nc))
	}
}

func (e *endless) last(t *testing.T) uint64 {
	t.Helper()
	last, err := e.operator.LastSequence(t.Context(), Raw)
	require.NoError(t, err)
	return last
}

// A Scan does not wait for messages that the server cannot read.
func TestScanOfDamagedBlock(t *testing.T) {
	t.Parallel()
	cfg := natsservertest.Config(t)
	server := natsservertest.Start(t, cfg)
	cfg.Port = server.Port()
	c, _ := newClient(t, Config{URL: server.URL(), CAFile: cfg.CAFile}, natsserver.Operator, natsfiles.Files)
	require.NoError(t, c.Ensure(t.Context(), Raw))
	small := configOf(t, c, Raw)
	small.MaxBytes = 120 << 10 // the server makes blocks of 32 KB from the next start on
	_, err := c.js.UpdateStream(t.Context(), small)
	require.NoError(t, err)
	natsservertest.Stop(t, server)
	server = natsservertest.Start(t, cfg)
	require.NoError(t, WaitConnected(t.Context(), c.nc))
	messages := withoutIDs("f2.raw.test", 0, 20)
	for _, m := range messages {
		m.Data = make([]byte, 2500)
		_, _ = rand.Read(m.Data)
	}
	_, err = c.NewAppender(Raw, 0).Append(t.Context(), messages)
	require.NoError(t, err)
	read := func() (sequences []uint64, err error) {
		err = Scan{Stream: Raw}.Read(t.Context(), c.js, func(m *Message) error {
			sequences = append(sequences, m.Sequence)
			return nil
		})
		return sequences, err
	}
	sequences, err := read()
	require.NoError(t, err, "the control")
	assert.Equal(t, places(1, 20), sequences)

	natsservertest.Stop(t, server)
	block := filepath.Join(cfg.Dir, "streams", "jetstream", "F2", "streams", Raw, "msgs", "1.blk")
	data, err := os.ReadFile(block)
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(data, []byte("cmp")))
	data[1000] ^= 0x10
	require.NoError(t, os.WriteFile(block, data, 0o600))
	natsservertest.Start(t, cfg)
	require.NoError(t, WaitConnected(t.Context(), c.nc))
	_, err = read()
	require.ErrorContains(t, err, "nothing comes after message 0")
}

// Fact: a backup leaves out a damaged message, and the server does not say so.
func TestSaveOfDamagedMessage(t *testing.T) {
	t.Parallel()
	e := newEndless(t)
	_, err := e.bridge.NewAppender(Raw, survive).Append(t.Context(), withoutIDs("f2.raw.test", 200, 203))
	require.NoError(t, err)
	natsservertest.Stop(t, e.server)
	messages := filepath.Join(e.cfg.Dir, "streams", "jetstream", "F2", "streams", Raw, "msgs")
	block, err := os.ReadFile(filepath.Join(messages, "1.blk"))
	require.NoError(t, err)
	block[contentAt(t, block, "201")] ^= 0x10
	require.NoError(t, os.WriteFile(filepath.Join(messages, "1.blk"), block, 0o600))
	e.start(t)
	var archive bytes.Buffer
	s, err := Save(t.Context(), e.operator.js, Raw, &archive)
	require.NoError(t, err)
	assert.EqualValues(t, survive+3, s.Messages)
	require.NoError(t, e.operator.js.DeleteStream(t.Context(), Raw))
	require.NoError(t, Restore(t.Context(), e.operator.js, &s, &archive))
	assert.Len(t, contents(t, e.operator, Raw), survive+2)
}

// The control: RAW gives a sequence once more that is the identity of a decoded message.
func TestLostEndControl(t *testing.T) {
	t.Parallel()
	e := newEndless(t)
	sequences, err := e.bridge.NewAppender(Raw, survive).Append(t.Context(), withoutIDs("f2.raw.test", 0, 1))
	require.NoError(t, err)
	assert.Equal(t, places(survive+1, survive+1), sequences)
	assert.Less(t, sequences[0], uint64(hadDecoded))
}

// Setup lets RAW continue after every message that was decoded.
func TestSetUpContinuesRaw(t *testing.T) {
	t.Parallel()
	e := newEndless(t)
	changes, err := e.operator.SetUp(t.Context(), Sizes{}, true)
	require.NoError(t, err)
	require.Len(t, changes, 1)
	assert.Contains(t, changes[0], "ends at message 9, but message 15 of it was decoded")
	assert.EqualValues(t, survive, e.last(t), "a dry run")
	_, err = e.operator.SetUp(t.Context(), Sizes{}, false)
	require.NoError(t, err)
	changes, err = e.operator.SetUp(t.Context(), Sizes{}, false)
	require.NoError(t, err)
	assert.Empty(t, changes, "once is enough")
	natsservertest.Stop(t, e.server)
	e.start(t)
	sequences, err := e.bridge.NewAppender(Raw, e.last(t)).Append(t.Context(), withoutIDs("f2.raw.test", 0, 1))
	require.NoError(t, err)
	assert.Equal(t, places(hadDecoded+1, hadDecoded+1), sequences)
	assert.Len(t, contents(t, e.operator, Raw), survive+1, "no placeholder is left")
}

// A bridge that runs meanwhile knows where RAW ended.
func TestAppenderContinuesRaw(t *testing.T) {
	t.Parallel()
	e := newEndless(t)
	sequences, err := e.appender.Append(t.Context(), withoutIDs("f2.raw.test", 0, 3))
	require.NoError(t, err)
	assert.Equal(t, places(hadStored+1, hadStored+3), sequences)
	placeholders := 0
	require.NoError(t, e.operator.Range(t.Context(), Raw, 1, hadStored, func(m *jetstream.RawStreamMsg) {
		if m.Subject == placeholder {
			placeholders++
		}
	}))
	assert.Equal(t, hadStored-survive, placeholders)
}
