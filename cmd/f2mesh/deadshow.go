package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
	"github.com/f2mesh/f2mesh/services/decoder"
)

type deadShowCommand struct {
	Letter uint64 `arg:"" help:"Number of the dead letter, as f2mesh dead list --letters shows it."`
	Reveal bool   `help:"Show the payload even if it may be personal: the data of a card reader, or of an unknown topic."`
}

// Run prints the letter, the message and what it decodes to now.
func (c *deadShowCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	m, err := openReplay(ctx, g, log)
	if err != nil {
		return err
	}
	defer m.close()
	l, err := deadletter.Get(ctx, m.client.JetStream, c.Letter)
	if err != nil {
		return err
	}
	if l.Removed {
		return fmt.Errorf("letter %d was removed", c.Letter)
	}
	printLetter(os.Stdout, &l)
	shown, err := m.look(ctx, &l)
	if err != nil {
		return err
	}
	shown.print(os.Stdout, c.Reveal)
	return nil
}

func printLetter(out io.Writer, l *deadletter.Stored) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(out, "%-11s %s\n", name, plain.Text(value))
		}
	}
	line("letter", fmt.Sprintf("%d, number %d of its stage, reason and controller", l.Sequence, l.Count))
	line("refused by", l.Stage)
	line("reason", l.Reason)
	line("detail", l.Detail)
	line("controller", macText(l.MAC))
	line("topic", l.Topic)
	if l.Part {
		line("part", fmt.Sprintf("of the message %d values were decoded", l.Decoded))
	}
	line("members", l.Member)
	line("received", l.Received.UTC().Format(time.RFC3339Nano))
	line("refused at", l.Time.UTC().Format(time.RFC3339Nano))
	if l.ID != (event.ID{}) {
		line("on RAW", fmt.Sprintf("sequence %d", l.ID.Sequence()))
	}
	line("metadata", l.MetadataVersion)
	line("sqlstate", l.SQLState)
	line("what to do", replay.Advice(l))
}

// shownMessage is what is known of the message that a letter is of.
type shownMessage struct {
	absent   string // why there is no payload
	body     []byte
	length   int
	personal bool
	frame    []byte
	points   []replay.Point
	result   *replay.Result // of today's metadata; nil: it was not on RAW
}

// look fetches the message and decodes it with today's metadata.
func (m *replaying) look(ctx context.Context, l *deadletter.Stored) (*shownMessage, error) {
	if l.ID == (event.ID{}) {
		t, err := topic.Parse(l.Topic)
		if err != nil {
			t, err = topic.ParseSubject(l.Topic)
		}
		return &shownMessage{body: l.Payload, length: l.Length, personal: err != nil || t.Component.Kind == topic.Reader}, nil //nolint:nilerr // what cannot be told is taken as personal
	}
	raw, err := m.mesh.Fetch(ctx, l)
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return &shownMessage{absent: "RAW no longer holds the message"}, nil
	}
	s := &shownMessage{body: raw.Data, length: len(raw.Data), personal: true}
	t, err := topic.ParseSubject(raw.Subject)
	if err != nil {
		return s, nil //nolint:nilerr // the letter says so
	}
	s.personal = t.Component.Kind == topic.Reader
	result, err := m.decoder.Decode(ctx, raw, l.ID)
	if err != nil {
		return nil, err
	}
	s.result = &result
	s.frame = m.decoder.Frame(t, raw.Data)
	s.points, err = m.decoder.Points(ctx, t)
	return s, err
}

// maxShown is how much of a payload is shown.
const maxShown = deadletter.MaxPayload

func (s *shownMessage) print(out io.Writer, reveal bool) {
	switch {
	case s.absent != "":
		fmt.Fprintf(out, "\n%s\n", s.absent)
		return
	case s.personal && !reveal:
		fmt.Fprintf(out, "\npayload     %d bytes, which may be personal: --reveal shows them\n", s.length)
		return
	}
	shown := s.body[:min(len(s.body), maxShown)]
	more := ""
	if len(shown) < s.length {
		more = fmt.Sprintf(" (the first %d of %d bytes)", len(shown), s.length)
	}
	fmt.Fprintf(out, "\npayload%s\n%s\n", more, plain.Text(string(shown)))
	if s.frame != nil {
		fmt.Fprintf(out, "\nframe, and the data points of today's metadata\n%s\n", plainLines(replay.Layout(s.frame, s.points)))
	}
	if s.result == nil {
		return
	}
	fmt.Fprintln(out, "\nwith today's metadata")
	if len(s.points) > 0 {
		fmt.Fprintln(out, plainLines(s.result.Values(s.points)))
	}
	for i := range s.result.Letters {
		if r := &s.result.Letters[i]; r.DataPointID == 0 {
			fmt.Fprintf(out, "refused: %s: %s\n", plain.Text(r.Reason), plain.Text(r.Detail))
		}
	}
	if s.result.Decoded != nil && s.result.Decoded.State != nil {
		fmt.Fprintln(out, "an event: it decodes")
	}
}

// plainLines makes each a line of its own, whatever it holds.
func plainLines(lines []string) string {
	shown := make([]string, len(lines))
	for i := range lines {
		shown[i] = plain.Text(lines[i])
	}
	return strings.Join(shown, "\n")
}

var _ replay.Decoder = (*decoder.Redecoder)(nil)
