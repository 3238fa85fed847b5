package outcome

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

func FuzzParse(f *testing.F) {
	f.Add("7", []byte(`{"command":"f2.command.e4fd45f654be.access-control-mode.3.strike-1","outcome":"confirmed","issued":"2026-11-24T10:00:00Z","at":"2026-11-24T10:00:01Z","state":{"power-flag":1}}`))
	f.Add("-1", []byte(`{}`))
	f.Add("", []byte(`[]`))
	f.Fuzz(func(t *testing.T, sequence string, data []byte) {
		r, err := Parse(nats.Header{HeaderSequence: {sequence}}, data)
		if err != nil || r.Issued.IsZero() {
			return
		}
		m, err := r.Msg()
		require.NoError(t, err)
		again, err := Parse(m.Header, m.Data)
		require.NoError(t, err)
		require.Equal(t, r.Sequence, again.Sequence)
		require.Equal(t, r.Outcome, again.Outcome)
		require.WithinDuration(t, r.At, again.At, time.Nanosecond)
	})
}
