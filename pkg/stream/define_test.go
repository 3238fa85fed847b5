package stream

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/natsserver"
	"github.com/f2mesh/f2mesh/pkg/natsserver/natsservertest"
)

// declared are the shipped streams, by the user of the service that ensures them.
var declared = map[string][]string{
	natsserver.Bridge:  {"RAW", "DEAD_LETTER", "COMMANDS"},
	natsserver.Decoder: {"DECODED", "KV_LATEST", "DEAD_LETTER"},
}

func configOf(t *testing.T, c *Client, name string) jetstream.StreamConfig {
	t.Helper()
	s, err := c.js.Stream(t.Context(), name)
	require.NoError(t, err)
	return s.CachedInfo().Config
}

func TestEnsureCreatesTheShippedStreamsOnce(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	configs := make(map[string]jetstream.StreamConfig)
	for _, user := range []string{natsserver.Bridge, natsserver.Decoder, natsserver.Bridge, natsserver.Decoder} {
		service, j := newClient(t, Config{InProcess: server.InProcess()}, user, natsfiles.Files)
		require.NoError(t, service.Ensure(t.Context(), declared[user]...))
		for _, name := range declared[user] {
			require.NoError(t, service.Ready(t.Context(), name))
			now := configOf(t, operator, name)
			if before, ok := configs[name]; ok {
				assert.Equal(t, before, now, "the second time changes nothing")
			}
			configs[name] = now
		}
		assert.False(t, j.has("keeps more"))
	}
	assert.Len(t, configs, 5)
	assert.Zero(t, configs["RAW"].MaxAge, "the keeper trims, the server does not")

	// A change by hand shows that the comparison above sees one.
	edited := configs["RAW"]
	edited.Description = "by hand"
	_, err := operator.js.UpdateStream(t.Context(), edited)
	require.NoError(t, err)
	assert.NotEqual(t, configs["RAW"], configOf(t, operator, "RAW"))
	require.NoError(t, operator.Ensure(t.Context(), "RAW"))
	assert.Equal(t, configs["RAW"], configOf(t, operator, "RAW"), "what is not retention is the file's")
}

func TestEnsureNeverShrinksRetention(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	require.NoError(t, operator.Ensure(t.Context(), "RAW"))
	file := configOf(t, operator, "RAW")
	for _, test := range []struct {
		name     string
		age      time.Duration
		bytes    int64
		age2     time.Duration
		bytes2   int64
		warnings bool
	}{
		{"more is kept", 2 * file.MaxAge, file.MaxBytes + 1<<20, 2 * file.MaxAge, file.MaxBytes + 1<<20, true},
		{"less is raised", time.Hour, 1 << 20, file.MaxAge, file.MaxBytes, false},
		{"each by itself", time.Hour, file.MaxBytes + 1<<20, file.MaxAge, file.MaxBytes + 1<<20, true},
		{"unlimited is kept", 0, -1, 0, -1, true},
	} {
		edited := file
		edited.MaxAge, edited.MaxBytes = test.age, test.bytes
		_, err := operator.js.UpdateStream(t.Context(), edited)
		require.NoError(t, err, test.name)
		bridge, j := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Bridge, natsfiles.Files)
		require.NoError(t, bridge.Ensure(t.Context(), "RAW"))
		now := configOf(t, operator, "RAW")
		assert.Equal(t, test.age2, now.MaxAge, test.name)
		assert.Equal(t, test.bytes2, now.MaxBytes, test.name)
		assert.Equal(t, test.warnings, j.has("stream keeps more than its file says"), test.name)
	}
}

// A service that may only make its stream makes it once and leaves it alone.
func TestCreateChangesNothing(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	operator, _ := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	registrar, j := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Registrar, natsfiles.Files)
	require.NoError(t, registrar.Create(t.Context(), "AUDIT"))
	made := configOf(t, operator, "AUDIT")
	assert.True(t, made.DenyDelete)
	require.NoError(t, operator.Ensure(t.Context(), "AUDIT"))
	require.NoError(t, registrar.Create(t.Context(), "AUDIT"))
	assert.Equal(t, made, configOf(t, operator, "AUDIT"))
	assert.False(t, j.has("differs from its file"))

	edited := made
	edited.MaxAge /= 2
	_, err := operator.js.UpdateStream(t.Context(), edited)
	require.NoError(t, err)
	require.NoError(t, registrar.Create(t.Context(), "AUDIT"))
	assert.Equal(t, edited.MaxAge, configOf(t, operator, "AUDIT").MaxAge)
	assert.True(t, j.has("differs from its file"))
	require.NoError(t, operator.Ensure(t.Context(), "AUDIT"))
	assert.Equal(t, made, configOf(t, operator, "AUDIT"), "the control: an operator's Ensure changes it")
}

func TestKeepRetention(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name                 string
		current, want, after int64 // the same for every limit
		kept                 bool
	}{
		{"equal", 5, 5, 5, false},
		{"larger", 6, 5, 6, true},
		{"smaller", 4, 5, 5, false},
		{"unlimited by 0", 0, 5, 0, true},
		{"unlimited by -1", -1, 5, -1, true},
		{"the file's is unlimited by 0", 5, 0, 0, false},
		{"the file's is unlimited by -1", 5, -1, -1, false},
	} {
		limits := func(n int64) jetstream.StreamConfig {
			return jetstream.StreamConfig{MaxAge: time.Duration(n), MaxBytes: n, MaxMsgs: n, MaxMsgsPerSubject: n}
		}
		merged := limits(test.want)
		kept := keepRetention(limits(test.current), &merged)
		assert.Equal(t, limits(test.after), merged, test.name)
		if test.kept {
			assert.Equal(t, []string{"max_age", "max_bytes", "max_msgs", "max_msgs_per_subject"}, kept, test.name)
		} else {
			assert.Empty(t, kept, test.name)
		}
	}
}

// What the server refuses for good is an error at once, what may come yet is
// waited for: services start in any order.
func TestEnsureWaitsForWhatMayComeYet(t *testing.T) {
	t.Parallel()
	server := natsservertest.Start(t, natsservertest.Config(t))
	c, j := newClient(t, Config{InProcess: server.InProcess()}, natsserver.Operator, natsfiles.Files)
	require.ErrorContains(t, c.Ensure(t.Context(), "NO_SUCH_FILE"), "stream_no_such_file.json")
	require.Error(t, c.Ready(t.Context(), "RAW"))

	impatient, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	_, err := c.Consumer(impatient, "RAW", "decoder")
	require.ErrorIs(t, err, context.DeadlineExceeded, "there is no stream RAW")

	found := make(chan error, 1)
	go func() {
		_, err := c.Consumer(t.Context(), "RAW", "decoder")
		found <- err
	}()
	require.Eventually(t, func() bool { return j.has("waiting for JetStream") }, patience, 10*time.Millisecond)
	require.NoError(t, c.Ensure(t.Context(), "RAW"))
	require.NoError(t, <-found)
}
