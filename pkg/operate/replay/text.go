package replay

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/plain"
)

// WriteTo writes the outcome as text for people.
func (o *Replayed) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	accepted := "accepted and removed"
	if o.DryRun {
		accepted = "would be accepted"
	}
	fmt.Fprintf(&b, "letters %d: %s %d\n", o.Letters, accepted, o.Accepted)
	writeRefused(&b, "still refused", o.Refused)
	for _, left := range []struct {
		n    uint64
		text string
	}{
		{o.NotWritten, "not written: %d. They decode, but the writer did not write the rows: f2mesh dead list --stage writer says why"},
		{o.Trimmed, "no longer on RAW: %d. Their messages are too old"},
		{o.Cut, "incomplete: %d. The letters hold only the beginning of the payload"},
		{o.NotKept, "no longer kept: %d. DEAD_LETTER keeps the last 100 of each stage, reason and controller: " +
			"f2mesh redecode --from TIME --to TIME decodes all messages of RAW, those too"},
	} {
		if left.n > 0 {
			fmt.Fprintf(&b, "  "+left.text+"\n", left.n)
		}
	}
	return b.WriteTo(w)
}

func writeRefused(w io.Writer, refused string, by map[string]uint64) {
	for _, reason := range slices.Sorted(maps.Keys(by)) {
		fmt.Fprintf(w, "  %s, %s: %d\n", refused, plain.Text(reason), by[reason])
	}
}

// WriteTo writes the comparison as text for people. It shows no state of an event: that
// may be personal.
func (d *Difference) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "messages %d, decoded %d\n", d.Messages, d.Decoded)
	writeRefused(&b, "refused", d.Refused)
	_, err := writeTable(&b, func(w io.Writer) {
		fmt.Fprint(w, plain.Row("DEVICE", "DATA POINT", "SAME", "CHANGED", "NEW", "GONE", "SECOND"))
		for i := range d.Points {
			p := &d.Points[i]
			device, point := fmt.Sprint(p.DeviceID), fmt.Sprintf("%d %s", p.DataPointID, plain.Text(p.Label))
			if p.DeviceID == 0 {
				device, point = "-", p.Label
			}
			fmt.Fprint(w, plain.Row(device, point, p.Same, p.Changed, p.New, p.Gone, p.Second))
		}
	})
	if err != nil {
		return 0, err
	}
	for i := range d.Points {
		p := &d.Points[i]
		for _, e := range p.Examples {
			if e.Before+e.After != "" {
				fmt.Fprintf(&b, "for example device %d, data point %d at %s: %s -> %s\n", p.DeviceID, p.DataPointID,
					e.Time.UTC().Format(time.RFC3339Nano), plain.Text(cmp.Or(e.Before, "none")), plain.Text(cmp.Or(e.After, "none")))
			}
		}
	}
	switch {
	case d.Changes() == 0:
		fmt.Fprintln(&b, "the tables match the current metadata")
	case d.DryRun:
		fmt.Fprintln(&b, "nothing was changed; without --dry-run these rows are written, and the previous values go to measurement_history")
	default:
		fmt.Fprintf(&b, "%d messages were put on DECODED; the writer replaces the rows, and the previous values go to measurement_history\n", d.Stored)
	}
	return b.WriteTo(w)
}
