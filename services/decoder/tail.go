package decoder

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Tail prints decoded messages as they arrive.
type Tail struct {
	Filter string    // of the subjects of DECODED
	From   time.Time // messages stored since then
	Lines  int       // the number of messages after which it stops; 0: never
	Raw    bool      // prints each message as JSON, with its subject
	Log    *slog.Logger
}

// Run prints until ctx ends, which is no error.
func (t Tail) Run(ctx context.Context, js jetstream.JetStream, out io.Writer) error {
	consumer, err := js.OrderedConsumer(ctx, stream.Decoded, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{t.Filter}, DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &t.From,
	})
	if err != nil {
		return fmt.Errorf("reading DECODED: %w", err)
	}
	return t.follow(ctx, consumer, out)
}

// follow prints what the consumer delivers.
func (t Tail) follow(ctx context.Context, consumer jetstream.Consumer, out io.Writer) error {
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("reading DECODED: %w", err)
	}
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	defer messages.Stop()
	var d event.Decoded
	for n := 0; t.Lines == 0 || n < t.Lines; n++ {
		one, err := messages.Next()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("reading DECODED: %w", err)
		case t.Raw:
			err = writeRaw(out, one)
		default:
			if err = event.ParseDecoded(one.Subject(), one.Data(), &d); err == nil {
				WriteDecoded(out, &d)
			}
		}
		if err != nil {
			t.Log.Warn("not a DECODED message", "subject", one.Subject(), "error", err)
		}
	}
	return nil
}

// writeRaw prints a message on one line, as JSON.
func writeRaw(out io.Writer, m jetstream.Msg) error {
	line, err := json.Marshal(struct {
		Subject string         `json:"subject"`
		Message jsontext.Value `json:"message"`
	}{m.Subject(), m.Data()})
	if err == nil {
		fmt.Fprintln(out, string(line))
	}
	return err
}

// WriteDecoded prints one message on one line. The data of a card or code
// are personal, so they are not shown.
func WriteDecoded(out io.Writer, d *event.Decoded) {
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
