package ledger

import (
	"bytes"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// maxDevices is how many balanced devices the text shows; those with something
// missing it always shows.
const maxDevices = 20

// WriteTo writes the report as text for people: the total in its first line,
// then tables.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	r.headline(&b)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, section := range []func(io.Writer){r.stageTable, r.positionTable, r.letterTable, r.deviceTable, r.missingTable, r.faultTable, r.outcomeTable} {
		section(t)
		_ = t.Flush() // to a buffer
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

func (r *Report) stageTable(w io.Writer) {
	fmt.Fprintln(w, "\nstage\treceived\tpassed on\tdead-lettered\tduplicates\tpending\tmissing\t")
	for _, s := range r.Stages {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", s.Name, s.Received, s.Passed, s.DeadLettered, s.Duplicates, s.Pending, s.Missing)
	}
}

func (r *Report) positionTable(w io.Writer) {
	fmt.Fprintln(w, "\nconsumer\tack floor\tdelivered\tin flight\tredelivered\tundelivered\t")
	for _, p := range r.Positions {
		if !p.Exists {
			fmt.Fprintf(w, "%s/%s\tdoes not exist\t\t\t\t\t\n", p.Stream, p.Consumer)
			continue
		}
		fmt.Fprintf(w, "%s/%s\t%d\t%d\t%d\t%d\t%d\t\n", p.Stream, p.Consumer, p.AckFloor, p.Delivered, p.InFlight, p.Redelivered, p.Undelivered)
	}
}

func (r *Report) letterTable(w io.Writer) {
	if len(r.Letters) == 0 {
		return
	}
	fmt.Fprintln(w, "\nrefused by\treason\tmessages\tof these in parts\tdata points\t")
	for _, l := range r.Letters {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t\n", l.Stage, l.Reason, l.Messages, l.InParts, l.Parts)
	}
}

func (r *Report) deviceTable(w io.Writer) {
	if len(r.Devices) == 0 {
		return
	}
	fmt.Fprintln(w, "\ncontroller\treceived\tdecoded\twritten\tdead-lettered\tduplicates\tpending\tmissing\t")
	shown, hidden := 0, 0
	for i := range r.Devices {
		d := &r.Devices[i]
		if d.Missing == 0 {
			if shown++; shown > maxDevices {
				hidden++
				continue
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", d.MAC, d.Received, d.Decoded, d.Written, d.DeadLettered, d.Duplicates, d.Pending, d.Missing)
	}
	if hidden > 0 {
		fmt.Fprintf(w, "%d more, none missing\t\t\t\t\t\t\t\t\n", hidden)
	}
}

func (r *Report) missingTable(w io.Writer) {
	if len(r.Missing) == 0 {
		return
	}
	fmt.Fprintf(w, "\nmissing (%d of %d)\tcontroller\tlost by\tlast on\tsequence\t\n", len(r.Missing), r.Total.Missing)
	for _, m := range r.Missing {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t\n", m.ID, m.MAC, m.Stage, m.Stream, m.Sequence)
	}
}

func (r *Report) faultTable(w io.Writer) {
	if len(r.Faults) == 0 {
		return
	}
	fmt.Fprintf(w, "\nrows (%d of %d)\tdevice\tdata point\ttime\tfault\t\n", len(r.Faults), r.Rows.Absent+r.Rows.Differing)
	for _, f := range r.Faults {
		fault := "absent"
		if f.Differs {
			fault = "other value"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t\n", f.ID, f.DeviceID, f.DataPointID, f.Time.UTC().Format(time.RFC3339Nano), fault)
	}
}

func (r *Report) outcomeTable(w io.Writer) {
	if len(r.Unexplained.Listed) == 0 {
		return
	}
	fmt.Fprintf(w, "\nno message explains (%d of %d)\tstream\tsequence\t\n", len(r.Unexplained.Listed), r.Unexplained.Total)
	for _, o := range r.Unexplained.Listed {
		fmt.Fprintf(w, "%s\t%s\t%d\t\n", o.ID, o.Stream, o.Sequence)
	}
}
