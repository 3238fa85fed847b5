package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/f2mesh/f2mesh/pkg/operate/plain"
)

// List is a list of checks.
type List []Check

// WriteTo writes a line for each check: its name and what it tries.
func (l List) WriteTo(w io.Writer) (int64, error) {
	return writeTable(w, func(table io.Writer) {
		for _, c := range l {
			fmt.Fprintf(table, "%s\t%s\n", c.Name, c.Try)
		}
	})
}

// CheckResult is a check that has run.
type CheckResult struct {
	Name  string `json:"name"`
	Guide string `json:"guide"`
	Try   string `json:"tried"`
	Finding
	Fix string `json:"fix,omitempty"` // only where something is wrong
}

// Results are those of one run. In JSON they are a list.
type Results []CheckResult

// WriteTo writes a table for people: a line for each result, and below it what was seen and
// how to fix it.
func (r Results) WriteTo(w io.Writer) (int64, error) {
	return writeTable(w, func(table io.Writer) {
		fmt.Fprintln(table, "STATE\tCHECK\tTRIED")
		for _, one := range r {
			fmt.Fprintf(table, "%s\t%s\t%s\n\t\t  seen: %s\n", one.State, one.Name, one.Try, plain.Text(one.Seen))
			if one.Fix != "" {
				fmt.Fprintf(table, "\t\t  fix: %s\n", plain.Text(one.Fix))
			}
		}
	})
}

func writeTable(w io.Writer, lines func(table io.Writer)) (int64, error) {
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	lines(table)
	if err := table.Flush(); err != nil {
		return 0, err
	}
	return b.WriteTo(w)
}

// ErrFailed is returned by Err.
var ErrFailed = errors.New("the security check failed")

// Err is an error that names the checks that failed; if strict, also those with a warning
// and those that were skipped.
func (r Results) Err(strict bool) error {
	var names []string
	for _, one := range r {
		if one.State == Failed || strict && one.State != OK {
			names = append(names, one.Name)
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: %s", ErrFailed, strings.Join(names, ", "))
	}
	return nil
}
