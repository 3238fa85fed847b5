package ledger

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/f2mesh/f2mesh/pkg/plain"
)

// maxDevices is how many balanced devices the text shows; those with something
// missing it always shows.
const maxDevices = 20

// WriteTo writes the report as text for people: the total in its first line,
// then tables.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	r.headline(&b)
	for _, t := range []table{r.stages(), r.positions(), r.letters(), r.devices(), r.missing(), r.faults(), r.outcomes()} {
		t.write(&b)
	}
	for _, id := range r.Acknowledged.IDs {
		fmt.Fprintf(&b, "acknowledged but never received: %s\n", id)
	}
	return b.WriteTo(w)
}

func (r *Report) headline(w io.Writer) {
	verdict := "balanced"
	if !r.Balanced() {
		verdict = "NOT BALANCED"
	}
	t := &r.Total
	fmt.Fprintf(w, "%s: received %d = written %d + dead-lettered %d + duplicates %d + pending %d + missing %d\n\n",
		verdict, t.Received, t.Written, t.DeadLettered, t.Duplicates, t.Pending, t.Missing)
	since := "the beginning"
	if !r.Since.IsZero() {
		since = r.Since.UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(w, "From %s until %s", since, r.Until.UTC().Format(time.RFC3339))
	if r.MAC != "" {
		fmt.Fprintf(w, ", controller %s only", r.MAC)
	}
	fmt.Fprintln(w)
	for _, l := range r.Limits {
		fmt.Fprintf(w, "The proof is limited: %s no longer holds what was before %s\n", l.Stream, l.From.UTC().Format(time.RFC3339))
	}
	rows := &r.Rows
	fmt.Fprintf(w, "Rows: expected %d = found %d + refused %d + pending %d + absent %d + differing %d\n",
		rows.Expected, rows.Found, rows.Refused, rows.Pending, rows.Absent, rows.Differing)
	if a := &r.Acknowledged; a.Claimed > 0 {
		fmt.Fprintf(w, "Acknowledged: claimed %d = received %d + outside the interval %d + never received %d\n",
			a.Claimed, a.Received, a.Elsewhere, a.NeverReceived)
	}
	if r.Unexplained.Total > 0 {
		fmt.Fprintf(w, "Outcomes that no message explains: %d\n", r.Unexplained.Total)
	}
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
	t := newTable("stage", "received", "passed on", "dead-lettered", "duplicates", "pending", "missing")
	for _, s := range r.Stages {
		t.row(s.Name, s.Received, s.Passed, s.DeadLettered, s.Duplicates, s.Pending, s.Missing)
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
	t := newTable("refused by", "reason", "messages", "of these in parts", "data points")
	for _, l := range r.Letters {
		t.row(l.Stage, l.Reason, l.Messages, l.InParts, l.Parts)
	}
	return t
}

func (r *Report) devices() table {
	t := newTable("controller", "received", "decoded", "written", "dead-lettered", "duplicates", "pending", "missing")
	shown, hidden := 0, 0
	for i := range r.Devices {
		d := &r.Devices[i]
		if d.Missing == 0 {
			if shown++; shown > maxDevices {
				hidden++
				continue
			}
		}
		t.row(d.MAC, d.Received, d.Decoded, d.Written, d.DeadLettered, d.Duplicates, d.Pending, d.Missing)
	}
	if hidden > 0 {
		t.row(fmt.Sprintf("%d more, none missing", hidden))
	}
	return t
}

func (r *Report) missing() table {
	t := newTable(fmt.Sprintf("missing (%d of %d)", len(r.Missing), r.Total.Missing), "controller", "lost by", "last on", "sequence")
	for _, m := range r.Missing {
		t.row(m.ID, m.MAC, m.Stage, m.Stream, m.Sequence)
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
