package health

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

// A flipped bit costs the end of a stream if the server reads its files anew, as after a
// crash. The alarm says so, whether the health service ran meanwhile or starts with the
// server.
func TestDamagedStream(t *testing.T) {
	t.Parallel()
	for name, flip := range map[string]bool{"control": false, "flipped": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := natsservertest.Config(t)
			server := natsservertest.Start(t, cfg)
			cfg.Port = server.Port()
			b := newBenchOn(t, cfg, server)
			b.stream("RAW", "stream_raw.json", 0)
			for i := range 10 {
				_, err := b.operator.Publish(t.Context(), "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1", fmt.Append(nil, "message ", i))
				require.NoError(t, err)
			}
			b.see(0)
			b.none()

			natsservertest.Stop(t, server)
			messages := filepath.Join(cfg.Dir, "streams", "jetstream", "F2", "streams", "RAW", "msgs")
			require.NoError(t, os.Remove(filepath.Join(messages, "index.db")))
			if flip {
				block := filepath.Join(messages, "1.blk")
				data, err := os.ReadFile(block)
				require.NoError(t, err)
				data[bytes.Index(data, []byte("message 6"))] ^= 1
				require.NoError(t, os.WriteFile(block, data, 0o600))
			}
			natsservertest.Start(t, cfg)
			require.Eventually(t, func() bool {
				return b.server.js.Conn().IsConnected() && b.operator.Conn().IsConnected()
			}, patience, 10*time.Millisecond)
			raw := b.see(time.Second).Streams[0]
			if !flip {
				b.none()
				assert.Zero(t, raw.Lost)
				return
			}
			assert.Equal(t, "it ended at message 10, and now ends at 6", b.next(Damaged, "RAW", true).Detail)
			b.newServer() // it starts anew
			b.see(2 * time.Second)
			assert.Contains(t, b.next(Damaged, "RAW", true).Detail, "could not read")
			assert.Positive(t, raw.Lost)
		})
	}
}
