package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/event"
	"github.com/f2mesh/f2mesh/pkg/payload"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// CommandStream is the stream of commands for controllers.
const CommandStream = "COMMANDS"

// command publishes each command to its controller, until ctx ends.
func (b *Bridge) command(ctx context.Context) error {
	consumer, err := b.streams.Open(ctx, CommandStream, stage)
	if err != nil {
		return err
	}
	commands, err := b.streams.Consume(ctx, consumer, 100)
	if err != nil {
		return err
	}
	// A stop sees the command through that is on its way, or it would reach the
	// door twice. Those behind it are the next bridge's.
	draining, cancel := stream.DrainContext(ctx, b.cfg.DrainTimeout)
	defer cancel()
	for m := range commands {
		if ctx.Err() != nil {
			_ = m.Nak() // or JetStream finds out by itself
			continue
		}
		if err := b.forward(draining, m); err != nil {
			b.log.Warn("command not forwarded, JetStream will deliver it again", "subject", m.Subject(), "error", err)
		}
	}
	if ctx.Err() == nil {
		return fmt.Errorf("reading %s: %w", CommandStream, stream.ErrConsumerGone)
	}
	return nil
}

// forward acknowledges the command when the broker has it, or when it is a dead
// letter.
func (b *Bridge) forward(ctx context.Context, m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	t, reason, err := b.checkCommand(m, meta.Timestamp)
	if err != nil {
		letter := deadletter.Letter{
			Stage: stage, Reason: reason, Detail: err.Error(), MAC: t.MAC, Topic: m.Subject(),
			ID:      event.NewID(m.Subject(), m.Data(), meta.Timestamp),
			Payload: m.Data(), Received: meta.Timestamp, Time: time.Now(),
		}
		if _, err := b.streams.Store(ctx, deadletter.Stream, []*nats.Msg{letter.Msg()}); err != nil {
			return err
		}
		b.metrics.deadLetters.WithLabelValues(reason).Inc()
		return b.streams.Acknowledge(ctx, m)
	}
	if err := b.send(ctx, t, m.Data()); err != nil {
		return errors.Join(err, m.NakWithDelay(time.Second))
	}
	b.metrics.commands.Inc()
	return b.streams.Acknowledge(ctx, m)
}

// errNotConnected is what a command waits for: the broker to be there.
var errNotConnected = errors.New("not connected to the MQTT broker")

// send publishes a command and returns when the broker has confirmed it.
func (b *Bridge) send(ctx context.Context, t topic.Topic, data []byte) error {
	select {
	case b.sending <- struct{}{}:
		defer func() { <-b.sending }()
	case <-ctx.Done():
		return ctx.Err()
	}
	s := b.session.Load()
	connection := s.connections.Load()
	if !s.client.IsConnectionOpen() {
		return errNotConnected
	}
	return b.confirmed(ctx, s, connection, s.client.Publish(t.MQTT(), 1, false, data))
}

// confirmed waits for the broker's PUBACK. It can only come on the connection
// that the command was sent on.
func (b *Bridge) confirmed(ctx context.Context, s *session, connection uint64, token mqtt.Token) error {
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	expired := time.After(b.cfg.CommandMaxAge)
	for {
		select {
		case <-token.Done():
			return token.Error()
		case <-look.C:
			if !s.client.IsConnectionOpen() || s.connections.Load() != connection {
				return errors.New("the connection was lost before the broker confirmed")
			}
		case <-expired:
			return errors.New("the broker did not confirm in time")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// checkCommand refuses what must not reach a controller.
func (b *Bridge) checkCommand(m jetstream.Msg, issued time.Time) (t topic.Topic, reason string, err error) {
	t, err = topic.ParseSubject(m.Subject())
	if err != nil {
		return t, "bad_command", err
	}
	if age := time.Since(issued); age > b.cfg.CommandMaxAge {
		return t, "command_expired", fmt.Errorf("waited %s, the limit is %s", age.Round(time.Second), b.cfg.CommandMaxAge)
	}
	if t.Component.Kind == topic.Sensor && len(m.Data()) > 0 {
		// Older firmware publishes readings under cmnd: this would come back as one.
		return t, "bad_command", errors.New("a sensor takes no command, only the empty payload that asks for its state")
	}
	var parser payload.Parser
	if _, err := parser.Parse(t, m.Data()); err != nil {
		return t, "bad_command", err
	}
	return t, "", nil
}
