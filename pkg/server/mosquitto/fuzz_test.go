package mosquitto

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzParseLine parses lines of the broker's log, of which clients choose parts.
func FuzzParseLine(f *testing.F) {
	for _, line := range []string{
		`1796033640: New connection from 127.0.0.1:1 on port 8883.`, `1796033640: Error: Unable to open acl_file "/x/acl".`,
		`Warning: Unsupported chunk "19" in persistent database file. Ignoring.`, "1796033640: ", ": x", "",
		`1: Denied PUBLISH from e4-fd-45-f6-54-be (d0, q1, r0, m1, 'tele/f2-e4fd45f654bf/x', ... (2 bytes))`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for _, cfg := range []Config{{}, {Denied: func(string) {}}} {
			parsed := cfg.parse()(line)
			require.Contains(t, []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}, parsed.Level)
			require.LessOrEqual(t, len(parsed.Text), len(line))
		}
		_ = namesList(line)
		if v, ok := ParseVersion(line); ok {
			require.GreaterOrEqual(t, min(v.Major, v.Minor, v.Patch), 0)
		}
	})
}

// FuzzReadPacket reads what a client or a broker sends.
func FuzzReadPacket(f *testing.F) {
	for _, packet := range []string{"\x20\x02\x00\x00", "\x30\xff\xff\xff\xff\x01", "\xd0\x00", "", "\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"} {
		f.Add([]byte(packet))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, body, err := readPacket(bytes.NewReader(data), largestLogLine)
		if err == nil {
			require.LessOrEqual(t, len(body), len(data))
			require.LessOrEqual(t, len(body), largestLogLine)
		}
	})
}
