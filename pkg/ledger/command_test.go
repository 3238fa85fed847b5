package ledger

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// commander issues commands and says what became of them.
type commander struct {
	*mesh
	bridge jetstream.Consumer
}

func newCommander(t *testing.T) *commander {
	t.Helper()
	m := newMesh(t)
	for name, subjects := range map[string]string{commandsStream: "f2.command.>", resultStream: "f2.result.>"} {
		config := jetstream.StreamConfig{Name: name, Subjects: []string{subjects}}
		if name == resultStream {
			config.MaxMsgsPerSubject = 3
		}
		_, err := m.js.CreateStream(t.Context(), config)
		require.NoError(t, err)
	}
	bridge, err := m.js.CreateConsumer(t.Context(), commandsStream, jetstream.ConsumerConfig{Durable: bridgeStage, AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	return &commander{m, bridge}
}

// command issues one for the n-th controller's strike.
func (c *commander) command(n int, outcomes ...string) uint64 {
	c.t.Helper()
	subject := fmt.Sprintf("%s.access-control-mode.1.strike-1", macAt(n))
	ack, err := c.js.Publish(c.t.Context(), "f2.command."+subject, []byte(`{"power-flag":1,"period":5}`))
	require.NoError(c.t, err)
	s, err := c.js.Stream(c.t.Context(), commandsStream)
	require.NoError(c.t, err)
	stored, err := s.GetMsg(c.t.Context(), ack.Sequence)
	require.NoError(c.t, err)
	for _, outcome := range outcomes {
		m := nats.NewMsg("f2.result." + subject)
		m.Header.Set(headerCommand, strconv.FormatUint(ack.Sequence, 10))
		m.Data = fmt.Appendf(nil, `{"outcome":%q,"issued":%q}`, outcome, stored.Time.Format(time.RFC3339Nano))
		_, err := c.js.PublishMsg(c.t.Context(), m)
		require.NoError(c.t, err)
	}
	return ack.Sequence
}

func TestCommands(t *testing.T) {
	t.Parallel()
	c := newCommander(t)
	c.command(1, "refused")
	c.command(2, "expired")
	c.command(3, "sent", "delivered")
	c.command(4, "sent", "confirmed")
	c.command(5, "sent", "unknown")
	c.command(6, "sent", "unknown", "confirmed")
	c.acknowledge(c.bridge, 6)
	c.command(7, "sent")
	c.command(8)
	r := c.audit(Options{})
	require.True(t, r.Balanced(), text(t, r))
	require.Equal(t, Commands{Sent: 8, Refused: 1, Expired: 1, Delivered: 1, Confirmed: 2, Unknown: 1, UnderWay: 2}, r.Commands)
	require.Equal(t, Commands{Sent: 1, Confirmed: 1}, c.audit(Options{MAC: macAt(6)}).Commands)

	// Acknowledged, and nobody says what became of them.
	c.acknowledge(c.bridge, 2)
	r = c.audit(Options{})
	require.False(t, r.Balanced())
	require.Equal(t, []uint64{7, 8}, r.Commands.MissingSequences)
	require.Contains(t, text(t, r), "2 commands vanished: neither an outcome on RESULT nor under way")
}

func TestCommandRemovedIsMissing(t *testing.T) {
	t.Parallel()
	c := newCommander(t)
	c.command(1, "confirmed")
	known, lost := c.command(2, "confirmed"), c.command(3)
	c.command(4)
	c.remove(commandsStream, known)
	c.remove(commandsStream, lost)
	r := c.audit(Options{})
	require.Equal(t, Commands{Sent: 4, Confirmed: 2, UnderWay: 1, Missing: 1, MissingSequences: []uint64{lost}}, r.Commands)
}

// TestOutcomesNotKept: RESULT keeps the last of each component.
func TestOutcomesNotKept(t *testing.T) {
	t.Parallel()
	c := newCommander(t)
	for range 5 {
		c.command(1, "confirmed")
	}
	c.command(2)
	c.command(2, "confirmed")
	c.acknowledge(c.bridge, 7)
	r := c.audit(Options{})
	require.Equal(t, Commands{Sent: 7, Confirmed: 4, NotKept: 2, Missing: 1, MissingSequences: []uint64{6}}, r.Commands)
}
