package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

type tailCommand struct {
	MAC   string        `arg:"" optional:"" help:"Only this controller."`
	Since time.Duration `help:"Start this long ago instead of now."`
	Lines int           `short:"n" help:"Stop after this many messages. 0: never."`
	JSON  bool          `help:"Print the messages of DECODED unchanged."`
}

// Run prints messages of DECODED until it is interrupted.
func (c *tailCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	filter := "f2.decoded.>"
	if c.MAC != "" {
		mac, err := topic.ParseMAC(c.MAC)
		if err != nil {
			return fmt.Errorf("%q is not a MAC address: 12 hex digits, bare or with - or : between bytes", c.MAC)
		}
		filter = "f2.decoded." + string(mac) + ".>"
	}
	m, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return err
	}
	defer m.Close()
	from := time.Now().Add(-c.Since)
	consumer, err := m.JetStream.OrderedConsumer(ctx, stream.Decoded, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{filter}, DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &from,
	})
	if err != nil {
		return fmt.Errorf("reading DECODED: %w", err)
	}
	return c.follow(ctx, consumer, log)
}

// follow prints what the consumer delivers.
func (c *tailCommand) follow(ctx context.Context, consumer jetstream.Consumer, log *slog.Logger) error {
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("reading DECODED: %w", err)
	}
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	defer messages.Stop()
	var d event.Decoded
	for n := 0; c.Lines == 0 || n < c.Lines; n++ {
		one, err := messages.Next()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("reading DECODED: %w", err)
		case c.JSON:
			fmt.Println(string(one.Data()))
			continue
		}
		if err := event.ParseDecoded(one.Data(), &d); err != nil {
			log.Warn("not a DECODED message", "subject", one.Subject(), "error", err)
			continue
		}
		printDecoded(os.Stdout, &d)
	}
	return nil
}

// printDecoded prints one message on one line. What a card or code held is not
// shown: it is somebody's.
func printDecoded(out io.Writer, d *event.Decoded) {
	fmt.Fprintf(out, "%s  %s  J%d %-15s ", d.Time.UTC().Format("15:04:05.000"), plain.Text(d.MAC), d.Connector, plain.Text(d.Component))
	switch {
	case len(d.Values) > 0:
		parts := make([]string, len(d.Values))
		for i, v := range d.Values {
			parts[i] = v.Label + " " + v.Format()
		}
		fmt.Fprintf(out, "%s: %s\n", plain.Text(d.Device), plain.Text(strings.Join(parts, ", ")))
	case strings.HasPrefix(d.Component, "reader-"):
		fmt.Fprintln(out, "read")
	default:
		fmt.Fprintln(out, plain.Text(string(d.State)))
	}
}
