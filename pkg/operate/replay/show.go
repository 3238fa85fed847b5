package replay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// Shown is a dead letter, its message, and what that decodes to now.
type Shown struct {
	Letter deadletter.Stored
	// Reveal shows the payload even if it may be personal.
	Reveal bool

	absent   string // why there is no payload
	body     []byte
	length   int
	personal bool
	frame    []byte
	points   []MetadataPoint
	result   *DecodedMessage // of the current metadata; nil: it was not on RAW
}

// Show looks up a letter by its sequence in DEAD_LETTER, and its message. With an error
// it returns the letter if it has found that.
func (m *Replayer) Show(ctx context.Context, sequence uint64) (*Shown, error) {
	l, err := deadletter.Get(ctx, m.Streams.JetStream(), sequence)
	if err != nil {
		return nil, err
	}
	if l.Removed {
		return nil, fmt.Errorf("letter %d was removed", sequence)
	}
	s := &Shown{Letter: l}
	return s, m.look(ctx, s)
}

// look fetches the message and decodes it with the current metadata.
func (m *Replayer) look(ctx context.Context, s *Shown) error {
	l := &s.Letter
	if l.ID == (event.ID{}) {
		t, err := topic.Parse(l.Topic)
		if err != nil {
			t, err = topic.ParseSubject(l.Topic)
		}
		s.body, s.length, s.personal = l.Payload, l.Length, personal(t, err)
		return nil
	}
	raw, err := m.Fetch(ctx, l)
	if err != nil {
		return err
	}
	if raw == nil {
		s.absent = "RAW no longer holds the message"
		return nil
	}
	t, err := topic.ParseSubject(raw.Subject)
	s.body, s.length, s.personal = raw.Data, len(raw.Data), personal(t, err)
	if err != nil {
		return nil //nolint:nilerr // the letter says so
	}
	result, err := m.Decoder.Decode(ctx, raw, l.ID)
	if err != nil {
		return err
	}
	s.result, s.frame = &result, m.Decoder.Frame(t, raw.Data)
	s.points, err = m.Decoder.Points(ctx, t)
	return err
}

// personal reports whether a payload may be personal: a card reader's, or one of a topic
// that cannot be parsed.
func personal(t topic.Topic, err error) bool { return err != nil || t.Component.Kind == topic.Reader }

// WriteTo writes the letter and the message as text for people.
func (s *Shown) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	s.writeLetter(&b)
	s.writeMessage(&b)
	return b.WriteTo(w)
}

func (s *Shown) writeLetter(w io.Writer) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-11s %s\n", name, plain.Text(value))
		}
	}
	l := &s.Letter
	line("letter", fmt.Sprintf("%d, number %d of its stage, reason and controller", l.Sequence, l.Count))
	line("refused by", l.Stage)
	line("reason", l.Reason)
	line("detail", l.Detail)
	line("controller", orUnknown(l.MAC))
	line("topic", l.Topic)
	if l.Part {
		line("part", fmt.Sprintf("%d other values of the message were decoded", l.Decoded))
	}
	line("members", l.Member)
	line("received", l.Received.UTC().Format(time.RFC3339Nano))
	line("refused at", l.Time.UTC().Format(time.RFC3339Nano))
	if l.ID != (event.ID{}) {
		line("on RAW", fmt.Sprintf("sequence %d", l.ID.Sequence()))
	}
	line("metadata", l.MetadataVersion)
	line("sqlstate", l.SQLState)
	line("what to do", advice(l))
}

func (s *Shown) writeMessage(w io.Writer) {
	switch {
	case s.absent != "":
		fmt.Fprintf(w, "\n%s\n", s.absent)
		return
	case s.personal && !s.Reveal:
		fmt.Fprintf(w, "\npayload     %d bytes, which may be personal: --reveal shows them\n", s.length)
		return
	}
	shown := s.body[:min(len(s.body), deadletter.MaxPayload)]
	more := ""
	if len(shown) < s.length {
		more = fmt.Sprintf(" (the first %d of %d bytes)", len(shown), s.length)
	}
	fmt.Fprintf(w, "\npayload%s\n%s\n", more, plain.Text(string(shown)))
	if s.frame != nil {
		fmt.Fprintln(w, "\nframe, and the data points of the current metadata")
		writeLines(w, layout(s.frame, s.points))
	}
	if s.result == nil {
		return
	}
	fmt.Fprintln(w, "\nwith the current metadata")
	writeLines(w, s.result.values(s.points))
	for i := range s.result.Letters {
		if r := &s.result.Letters[i]; r.DataPointID == 0 {
			fmt.Fprintf(w, "refused: %s: %s\n", plain.Text(r.Reason), plain.Text(r.Detail))
		}
	}
	if s.result.Decoded != nil && s.result.Decoded.State != nil {
		fmt.Fprintln(w, "an event, which decodes")
	}
}

// writeLines makes each a line of its own, whatever it holds.
func writeLines(w io.Writer, lines []string) {
	for _, line := range lines {
		fmt.Fprintln(w, plain.Text(line))
	}
}

// maxLayout bounds how many bytes of a frame are laid out: Modbus has at most 256.
const maxLayout = 512

// layout lays a frame out, a line a byte, against the data points that take it. Bytes
// that a data point needs and the frame does not have are shown as --.
func layout(frame []byte, points []MetadataPoint) (lines []string) {
	end := len(frame)
	for i := range points {
		if p := &points[i]; p.Offset >= 0 && p.Length > 0 && p.Offset < maxLayout {
			end = max(end, p.Offset+p.Length)
		}
	}
	for at := range min(end, maxLayout) {
		hex := "--"
		if at < len(frame) {
			hex = fmt.Sprintf("%02X", frame[at])
		}
		var of []string
		for i := range points {
			p := &points[i]
			if p.Offset <= at && at < p.Offset+p.Length {
				of = append(of, fmt.Sprintf("data point %d (%q), byte %d of %d", p.ID, p.Label, at-p.Offset+1, p.Length))
			}
		}
		lines = append(lines, strings.TrimRight(fmt.Sprintf("byte %3d  %s  %s", at, hex, strings.Join(of, "; ")), " "))
	}
	if end > maxLayout {
		lines = append(lines, fmt.Sprintf("and %d more", end-maxLayout))
	}
	return lines
}

// values says for each data point what it decodes to, or why not.
func (r *DecodedMessage) values(points []MetadataPoint) (lines []string) {
	for i := range points {
		p := &points[i]
		line := fmt.Sprintf("data point %d (%q): ", p.ID, p.Label)
		switch value, detail := r.value(p.ID); {
		case value != "":
			line += value
		case detail != "":
			line += "refused: " + detail
		case p.Problem != "":
			line += "refused: " + p.Problem
		default:
			line += "no value"
		}
		lines = append(lines, line)
	}
	return lines
}

func (r *DecodedMessage) value(point int32) (value, detail string) {
	if r.Decoded != nil {
		for i := range r.Decoded.Values {
			if v := &r.Decoded.Values[i]; v.DataPointID == point {
				return v.Format(), ""
			}
		}
	}
	for i := range r.Letters {
		if l := &r.Letters[i]; l.DataPointID == point {
			return "", l.Detail
		}
	}
	return "", ""
}
