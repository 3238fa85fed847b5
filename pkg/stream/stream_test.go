package stream

import (
	"bytes"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

func TestMain(m *testing.M) {
	natsservertest.RunNode()
	goleak.VerifyTestMain(m, natsservertest.Leftovers()...)
}

// patience is how long a test waits for what must happen: a busy machine only
// makes it slower. moment is how long it looks for what must not happen.
const (
	patience = time.Minute
	moment   = time.Second
)

// journal is a log that a test waits on.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) has(text string) bool { return j.count(text) > 0 }

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), text)
}

// connect is Connect, and waits at the end until nothing of the connection runs.
func connect(t *testing.T, cfg Config, user string, credential secret.Login, j *journal) *nats.Conn {
	t.Helper()
	nc, err := Connect(cfg, user, credential, slog.New(slog.NewTextHandler(j, nil)))
	require.NoError(t, err)
	t.Cleanup(func() { natsservertest.Close(nc) })
	return nc
}

// newClient is a service of the given user, through memory unless cfg says otherwise.
func newClient(t *testing.T, cfg Config, user string, files fs.FS) (*Client, *journal) {
	t.Helper()
	j := new(journal)
	nc := connect(t, cfg, user, secrettest.Credential(user, natsservertest.Password(user)), j)
	require.NoError(t, WaitConnected(t.Context(), nc))
	c, err := NewClient(nc, files, slog.New(slog.NewTextHandler(j, nil)))
	require.NoError(t, err)
	return c, j
}

// testFiles declare the stream TEST, which holds at most max messages and
// remembers their ids for longer than any test takes.
func testFiles(limit int) fs.FS {
	return fstest.MapFS{"stream_test.json": {Data: []byte(`{"name":"TEST","subjects":["test"],"storage":"file",
		"discard":"new","duplicate_window":3600000000000,"allow_atomic":true,"max_msgs":` + strconv.Itoa(limit) + `}`)}}
}

// numbered are messages [from, to), each with its number as content and id.
func numbered(subject string, from, to int) (messages []*nats.Msg) {
	for i := from; i < to; i++ {
		m := nats.NewMsg(subject)
		m.Data = []byte(strconv.Itoa(i))
		m.Header.Set(nats.MsgIdHdr, strconv.Itoa(i))
		messages = append(messages, m)
	}
	return messages
}

// requireStored fails unless the stream holds the messages 0 to n-1, each once
// and in this order.
func requireStored(t *testing.T, c *Client, name string, n int) {
	t.Helper()
	assert.Equal(t, sequence(0, n), contents(t, c, name))
}

func sequence(from, to int) (numbers []string) {
	for i := from; i < to; i++ {
		numbers = append(numbers, strconv.Itoa(i))
	}
	return numbers
}

// contents are the contents of all messages of the stream, in its order.
func contents(t *testing.T, c *Client, name string) (data []string) {
	t.Helper()
	s, err := c.js.Stream(t.Context(), name)
	require.NoError(t, err)
	n := int(s.CachedInfo().State.Msgs)
	if n == 0 {
		return nil
	}
	consumer, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy})
	require.NoError(t, err)
	batch, err := consumer.Fetch(n, jetstream.FetchMaxWait(patience))
	require.NoError(t, err)
	for m := range batch.Messages() {
		data = append(data, string(m.Data()))
	}
	require.NoError(t, batch.Error())
	return data
}
