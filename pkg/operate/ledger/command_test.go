package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// commander issues commands and says what became of them.
type commander struct {
	*mesh
	bridge jetstream.Consumer
}

func newCommander(t *testing.T) *commander {
	t.Helper()
	m := newMesh(t)
	require.NoError(t, m.client.Ensure(t.Context(), stream.Commands, stream.Result))
	bridge, err := m.client.Consumer(t.Context(), stream.Commands, stream.StageBridge)
	require.NoError(t, err)
	return &commander{m, bridge}
}

// command issues one for the n-th controller's strike.
func (c *commander) command(n int, outcomes ...outcome.Outcome) uint64 {
	c.t.Helper()
	subject := fmt.Sprintf("f2.command.%s.access-control-mode.1.strike-1", macAt(n))
	ack, err := c.js.Publish(c.t.Context(), subject, []byte(`{"power-flag":1,"period":5}`))
	require.NoError(c.t, err)
	s, err := c.js.Stream(c.t.Context(), stream.Commands)
	require.NoError(c.t, err)
	stored, err := s.GetMsg(c.t.Context(), ack.Sequence)
	require.NoError(c.t, err)
	for _, o := range outcomes {
		r := outcome.Result{Sequence: ack.Sequence, Command: subject, Outcome: o, Issued: stored.Time, At: time.Now()}
		m, err := r.Msg()
		require.NoError(c.t, err)
		_, err = c.js.PublishMsg(c.t.Context(), m)
		require.NoError(c.t, err)
	}
	return ack.Sequence
}

func TestCommands(t *testing.T) {
	t.Parallel()
	c := newCommander(t)
	denied := outcome.Result{Command: fmt.Sprintf("f2.command.%s.access-control-mode.1.strike-1", macAt(1)), Outcome: outcome.Refused, Issued: time.Now(), At: time.Now()}
	m, err := denied.Msg() // it never was on COMMANDS
	require.NoError(t, err)
	_, err = c.js.PublishMsg(t.Context(), m)
	require.NoError(t, err)
	c.command(1, outcome.Refused)
	c.command(2, outcome.Expired)
	c.command(3, outcome.Sent, outcome.Delivered)
	c.command(4, outcome.Sent, outcome.Confirmed)
	c.command(5, outcome.Sent, outcome.Unknown)
	c.command(6, outcome.Sent, outcome.Unknown, outcome.Confirmed)
	c.acknowledge(c.bridge, 6)
	c.command(7, outcome.Sent)
	c.command(8)
	r := c.audit(Options{})
	require.True(t, r.Balanced(), text(t, r))
	require.Equal(t, CommandCounts{Sent: 8, Refused: 1, Expired: 1, Delivered: 1, Confirmed: 2, Unknown: 1, UnderWay: 2}, r.Commands)
	require.Equal(t, CommandCounts{Sent: 1, Confirmed: 1}, c.audit(Options{MAC: macAt(6)}).Commands)

	// Acknowledged without an outcome.
	c.acknowledge(c.bridge, 2)
	r = c.audit(Options{})
	require.False(t, r.Balanced())
	require.Equal(t, []uint64{7, 8}, r.Commands.MissingSequences)
	require.Contains(t, text(t, r), "2 commands vanished: neither an outcome on RESULT nor under way")
}

func TestCommandRemovedIsMissing(t *testing.T) {
	t.Parallel()
	c := newCommander(t)
	c.command(1, outcome.Confirmed)
	known, lost := c.command(2, outcome.Confirmed), c.command(3)
	c.command(4)
	c.remove(stream.Commands, known)
	c.remove(stream.Commands, lost)
	r := c.audit(Options{})
	require.Equal(t, CommandCounts{Sent: 4, Confirmed: 2, UnderWay: 1, Missing: 1, MissingSequences: []uint64{lost}}, r.Commands)
}

// TestOutcomesNotKept: RESULT keeps the last of each component.
func TestOutcomesNotKept(t *testing.T) {
	t.Parallel()
	c := newCommander(t)
	results, err := c.js.Stream(t.Context(), stream.Result)
	require.NoError(t, err)
	few := results.CachedInfo().Config
	few.MaxMsgsPerSubject = 3
	_, err = c.js.UpdateStream(t.Context(), few)
	require.NoError(t, err)
	for range 5 {
		c.command(1, outcome.Confirmed)
	}
	c.command(2)
	c.command(2, outcome.Confirmed)
	c.acknowledge(c.bridge, 7)
	r := c.audit(Options{})
	require.Equal(t, CommandCounts{Sent: 7, Confirmed: 4, NotKept: 2, Missing: 1, MissingSequences: []uint64{6}}, r.Commands)
}
