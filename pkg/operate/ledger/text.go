package ledger

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// maxDevices is how many balanced devices the text shows; those with something
// missing it always shows.
const maxDevices = 20

// WriteTo writes the report as text for people: the total in its first line, then
// where the differences are, then tables.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	r.headline(&b)
	for _, t := range []table{
		r.stages(), r.positions(), r.letters(), r.commands(), r.devices(), r.missing(), r.vanished(), r.faults(), r.outcomes(),
	} {
		t.write(&b)
	}
	for _, digest := range r.Acknowledged.Digests {
		fmt.Fprintf(&b, "acknowledged but not found: %s\n", digest)
	}
	return b.WriteTo(w)
}

func (r *Report) headline(w io.Writer) {
	verdict := "balanced"
	if !r.Balanced() {
		verdict = "NOT BALANCED"
	}
	t := &r.Total
	fmt.Fprintf(w, "%s: received %d = written %d + dead-lettered %d + copies dropped %d + retained %d + pending %d + missing %d\n",
		verdict, t.Received, t.Written, t.DeadLettered, t.Copies, t.Retained, t.Pending, t.Missing)
	for _, line := range r.differences() {
		fmt.Fprintln(w, "- "+line)
	}
	since := "the beginning"
	if !r.Since.IsZero() {
		since = r.Since.UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(w, "\nFrom %s until %s", since, r.Until.UTC().Format(time.RFC3339))
	if r.MAC != "" {
		fmt.Fprintf(w, ", controller %s only", r.MAC)
	}
	fmt.Fprintln(w)
	for _, l := range r.Limits {
		fmt.Fprintf(w, "The audit is limited: %s no longer holds everything from before %s\n", l.Stream, l.From.UTC().Format(time.RFC3339))
	}
	for _, line := range r.remarks() {
		fmt.Fprintln(w, line)
	}
	rows := &r.Rows
	fmt.Fprintf(w, "Rows: expected %d = found %d + in the history %d + refused %d + refused, letter not kept %d + pending %d + absent %d + differing %d\n",
		rows.Expected, rows.Found, rows.History, rows.Refused, rows.NotKept, rows.Pending, rows.Absent, rows.Differing)
	if a := &r.Acknowledged; a.Claimed > 0 {
		fmt.Fprintf(w, "Acknowledged: claimed %d = received %d + received outside the interval %d + letter not kept %d + never received %d\n",
			a.Claimed, a.Received, a.Elsewhere, a.NotKept, a.NeverReceived)
	}
}

// count is a number of things, in words.
func count(n uint64, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return strconv.FormatUint(n, 10) + " " + thing
}

// differences says what is missing, and where.
func (r *Report) differences() (lines []string) {
	say := func(n uint64, thing, what string) {
		if n > 0 {
			lines = append(lines, count(n, thing)+" "+what)
		}
	}
	say(r.Acknowledged.NeverReceived, "message", "vanished before RAW: acknowledged to the sender, but neither on RAW nor refused by the bridge")
	say(r.Vanished.Messages, "message", "vanished from RAW: removed from between others. DECODED and DEAD_LETTER have "+count(r.Vanished.Outcomes, "outcome")+" of them")
	say(r.stage(stream.StageDecoder).Missing, "message", "vanished between RAW and DECODED: the decoder acknowledged without an outcome")
	say(r.stage(stream.StageWriter).Missing, "message", "vanished between DECODED and the tables: the writer acknowledged, but rows are absent or differ")
	say(r.Unexplained.Total, "outcome", "on DECODED or DEAD_LETTER without a message on RAW, or unreadable")
	say(r.Commands.Missing, "command", "vanished: neither an outcome on RESULT nor under way")
	return lines
}

// remarks say what is accounted for, and still worth knowing.
func (r *Report) remarks() (lines []string) {
	say := func(title string, n uint64, thing, what string) {
		if n > 0 {
			lines = append(lines, title+": "+count(n, thing)+" "+what)
		}
	}
	var notKept uint64
	for i := range r.Letters {
		notKept += r.Letters[i].NotKept
	}
	say("Partial", r.Total.Partial, "message", "written, of which DEAD_LETTER has refused parts")
	say("Parked", r.Parked, "message", "waiting for metadata that cannot be read now")
	say("Letters not kept", notKept, "message", "counted as dead-lettered whose letters DEAD_LETTER no longer keeps. "+
		"The number fits the letters that were counted; which messages they were is not known")
	say("Received more often than acknowledged", r.Acknowledged.More, "message", "that their sender repeated")
	say("Outcomes not kept", r.Commands.NotKept, "command", "whose outcomes RESULT no longer keeps")
	return lines
}

// stage returns the row of one of the three stages.
func (r *Report) stage(name string) *Stage {
	for i := range r.Stages {
		if r.Stages[i].Name == name {
			return &r.Stages[i]
		}
	}
	return &Stage{}
}

// table is rows of cells, the titles first. It is not written if there is
// nothing below them.
type table [][]string

func newTable(titles ...string) table { return table{titles} }

func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = plain.Text(fmt.Sprint(c)) // subjects are not ours alone
	}
	*t = append(*t, row)
}

// write aligns the first column left, as it holds names, and the others right.
func (t table) write(b *bytes.Buffer) {
	if len(t) < 2 {
		return
	}
	widths := make([]int, len(t[0]))
	for _, row := range t {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	b.WriteByte('\n')
	for _, row := range t {
		var line strings.Builder
		fmt.Fprintf(&line, "%-*s", widths[0], row[0])
		for i, cell := range row[1:] {
			fmt.Fprintf(&line, "  %*s", widths[i+1], cell)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

func (r *Report) stages() table {
	t := newTable("stage", "received", "passed on", "dead-lettered", "copies", "retained", "pending", "missing")
	for _, s := range r.Stages {
		t.row(s.Name, s.Received, s.Passed, s.DeadLettered, s.Copies, s.Retained, s.Pending, s.Missing)
	}
	return t
}

func (r *Report) positions() table {
	t := newTable("consumer", "ack floor", "delivered", "in flight", "redelivered", "undelivered")
	for _, p := range r.Positions {
		if p.Exists {
			t.row(p.Stream+"/"+p.Consumer, p.AckFloor, p.Delivered, p.InFlight, p.Redelivered, p.Undelivered)
		} else {
			t.row(p.Stream+"/"+p.Consumer, "does not exist")
		}
	}
	return t
}

func (r *Report) letters() table {
	t := newTable("refused by", "reason", "messages", "of these letter not kept", "of these in parts", "letters of parts")
	for _, l := range r.Letters {
		t.row(l.Stage, l.Reason, l.Messages, l.NotKept, l.InParts, l.Parts)
	}
	return t
}

func (r *Report) commands() table {
	t := newTable("commands", "refused", "expired", "delivered", "confirmed", "unknown", "under way", "outcome not kept", "missing")
	if c := &r.Commands; c.Sent > 0 {
		t.row(c.Sent, c.Refused, c.Expired, c.Delivered, c.Confirmed, c.Unknown, c.UnderWay, c.NotKept, c.Missing)
	}
	return t
}

func (r *Report) devices() table {
	t := newTable("controller", "received", "decoded", "written", "of these in part", "dead-lettered", "copies", "retained", "pending", "missing")
	shown, hidden := 0, 0
	for i := range r.Devices {
		d := &r.Devices[i]
		if d.Missing == 0 {
			if shown++; shown > maxDevices {
				hidden++
				continue
			}
		}
		t.row(d.MAC, d.Received, d.Decoded, d.Written, d.Partial, d.DeadLettered, d.Copies, d.Retained, d.Pending, d.Missing)
	}
	if hidden > 0 {
		t.row(fmt.Sprintf("%d more, none missing", hidden))
	}
	return t
}

func (r *Report) missing() table {
	t := newTable(fmt.Sprintf("missing (%d of %d)", len(r.Missing), r.Total.Missing-min(r.Total.Missing, r.Vanished.Messages)), "controller", "lost by", "last on", "sequence")
	for _, m := range r.Missing {
		t.row(m.ID, m.MAC, m.Stage, m.Stream, m.Sequence)
	}
	return t
}

func (r *Report) vanished() table {
	t := newTable("vanished from RAW", "first", "last")
	for _, s := range r.Vanished.Listed {
		t.row(s.Last-s.First+1, s.First, s.Last)
	}
	return t
}

func (r *Report) faults() table {
	t := newTable(fmt.Sprintf("rows (%d of %d)", len(r.Faults), r.Rows.Absent+r.Rows.Differing), "device", "data point", "time", "fault")
	for _, f := range r.Faults {
		fault := "absent"
		if f.Differs {
			fault = "other value"
		}
		t.row(f.ID, f.DeviceID, f.DataPointID, f.Time.UTC().Format(time.RFC3339Nano), fault)
	}
	return t
}

func (r *Report) outcomes() table {
	t := newTable(fmt.Sprintf("no message explains (%d of %d)", len(r.Unexplained.Listed), r.Unexplained.Total), "stream", "sequence")
	for _, o := range r.Unexplained.Listed {
		t.row(o.ID, o.Stream, o.Sequence)
	}
	return t
}
