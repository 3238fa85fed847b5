package mosquitto

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// headSize is the size of what the database has before the ids of a message: four bytes
// each for kind and length, and 32 bytes of numbers.
const headSize = 8 + 32

// Fact: Mosquitto's database has no checksums. A flipped bit in a message is handed over
// as if the controller had sent it; one in the frame of a message loses the message, and a
// warning says so at best; others keep the broker from starting.
func TestFlippedBitInDatabase(t *testing.T) {
	t.Parallel()
	const one, two, three = "tele/f2-e4fd45f654be/x=reading-1", "tele/f2-e4fd45f654be/x=reading-2", "tele/f2-e4fd45f654be/x=reading-3"
	// Before its topic a message has a head (headSize), and the ids of its sender and user.
	const ids = 2 * len("e4-fd-45-f6-54-be")
	for _, test := range []struct {
		name   string
		flip   func(database []byte) // nil: nothing
		want   []string              // that the bridge gets, the others are "4"
		warned string
	}{
		{"nothing", nil, []string{one, two, three}, ""},
		{"the content", func(d []byte) { d[bytes.Index(d, []byte("reading-2"))] ^= 1 }, []string{one, "tele/f2-e4fd45f654be/x=seading-2", three}, ""},
		{"the topic", func(d []byte) { d[bytes.Index(d, []byte("tele/f2-e4fd45f654be/xreading-2"))+8] ^= 1 }, []string{one, "tele/f2-d4fd45f654be/x=reading-2", three}, ""},
		{"the kind of chunk", func(d []byte) {
			d[bytes.Index(d, []byte("tele/f2-e4fd45f654be/xreading-2"))-ids-headSize+3] ^= 0x10
		}, []string{one, three}, "Unsupported chunk"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b, log := queuedReadings(t)
			if test.flip != nil {
				changeDatabase(t, b, test.flip)
			}
			b.start()
			b.publish("4")
			assert.Equal(t, append(test.want, "tele/f2-e4fd45f654be/x=4"), b.queued("4"))
			if test.warned != "" {
				assert.Contains(t, log.String(), test.warned)
			} else {
				assert.NotContains(t, log.String(), "level=WARN")
			}
		})
	}
}

// A broker that cannot read its database does not start. The error names the file.
func TestUnreadableDatabase(t *testing.T) {
	t.Parallel()
	for name, flip := range map[string]func([]byte){
		"the head":    func(d []byte) { d[3] ^= 0x10 },
		"the version": func(d []byte) { d[22] ^= 0x10 },
		"a length":    func(d []byte) { d[bytes.Index(d, []byte("e4-fd-45-f6-54-be"))-headSize+4] ^= 0x10 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := queuedReadings(t)
			changeDatabase(t, b, flip)
			_, err := Start(t.Context(), b.cfg)
			database := filepath.Join(b.cfg.Dir, "data", savedFile)
			require.ErrorContains(t, err, "mosquitto.db is damaged: see the incidents")
			require.NoError(t, os.Rename(database, database+".damaged")) // as the incidents say
			b.start()
		})
	}
}

// queuedReadings is a broker that was stopped with three readings for the bridge.
func queuedReadings(t *testing.T) (*bench, *journal) {
	t.Helper()
	b, log := newBench(t), &journal{}
	b.start()
	b.setDevices([]topic.MAC{device})
	b.absentBridge()
	b.publish("reading-1", "reading-2", "reading-3")
	b.stop()
	b.cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	return b, log
}

func changeDatabase(t *testing.T, b *bench, change func([]byte)) {
	t.Helper()
	file := filepath.Join(b.cfg.Dir, "data", savedFile)
	info, err := os.Stat(file)
	require.NoError(t, err)
	database, err := os.ReadFile(file)
	require.NoError(t, err)
	change(database)
	require.NoError(t, os.WriteFile(file, database, info.Mode()))
}

// journal is a log. It is safe for concurrent use.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}
