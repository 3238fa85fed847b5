package command

import (
	"fmt"
	"io"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
)

// WriteTo writes the answer for people, on one line.
func (a *Answer) WriteTo(out io.Writer) (int64, error) {
	text := string(a.Outcome) + ": " + describe(a.Command)
	if len(a.State) > 0 {
		text += ", reported " + string(a.State)
	}
	if a.Detail != "" {
		text += ": " + a.Detail
	}
	if !a.Sent.IsZero() {
		text += fmt.Sprintf(" (after %d ms)", a.At.Sub(a.Issued).Milliseconds())
	}
	if a.Repeated {
		text += fmt.Sprintf("; the id %s was used before, this is the outcome of %s", a.ID, a.Issued.Local().Format("2006-01-02 15:04:05"))
	}
	n, err := fmt.Fprintln(out, plain.Text(text))
	return int64(n), err
}

// WriteTo writes the line for people.
func (l *BulkLine) WriteTo(out io.Writer) (int64, error) {
	if l.Answer != nil {
		return l.Answer.WriteTo(out)
	}
	n, err := fmt.Fprintln(out, plain.Text(fmt.Sprintf("failed: %s: %s", describe(l.Command), l.Error)))
	return int64(n), err
}

// describe names the component of a command for people.
func describe(subject string) string {
	t, err := topic.ParseSubject(subject)
	if err != nil {
		return subject
	}
	target := access.PlaceOf(t, "")
	return target.String()
}
