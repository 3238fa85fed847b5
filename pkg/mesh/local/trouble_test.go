package local

import (
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSayWaiting(t *testing.T) {
	t.Parallel()
	held := WatchWarnings(slog.New(slog.DiscardHandler))
	log := slog.New(held).With("service", "bridge").WithGroup("g")
	in, out := io.Pipe()
	stop := held.sayWaiting(out, "bridge", "f2mesh.log", time.Millisecond)
	lines := make(chan string)
	go func() {
		buffer := make([]byte, 1000)
		for {
			n, err := in.Read(buffer)
			if err != nil {
				close(lines)
				return
			}
			lines <- string(buffer[:n])
		}
	}()
	assert.Equal(t, "  bridge     waiting; the log is in f2mesh.log\n", <-lines)
	log.Info("of no interest")
	log.Warn("no password for MQTT", "error", errors.New("logging in to Vault: bridge.role_id is not there"))
	assert.Equal(t, "  bridge     waiting: no password for MQTT: logging in to Vault: bridge.role_id is not there\n", <-lines)
	stop()
	require.NoError(t, out.Close())
	_, more := <-lines
	assert.False(t, more)
}
