package registrar

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// importBatch is how many devices of a list are registered together. The broker
// reads its lists once for each batch, which takes it longer the more devices it
// has.
const importBatch = 1000

// ImportLine is a line of a list of devices, and what became of it.
type ImportLine struct {
	Number int // of the first one, 1
	Text   string
	Result RequestResult
}

// Import registers a list of devices in CSV, a MAC in any spelling and a serial
// number a line. A first line that names them (mac, serial_number) is optional, and
// lets them stand in other columns. It calls report for each line, in their order,
// once that is settled. A bad line does not stop the others. Whoever imports a list
// again registers what is still missing. The error is one that stopped the import.
func (r *Registrar) Import(ctx context.Context, origin Origin, list io.Reader, report func(ImportLine)) error {
	return eachBatch(ctx, list, report, func(ctx context.Context, requests []Request) ([]RequestResult, error) {
		return r.Register(ctx, origin, requests...)
	})
}

// Preview reports what Import would, and does nothing; see Foresee.
func (r *Registrar) Preview(ctx context.Context, list io.Reader, report func(ImportLine)) error {
	foreseen := map[topic.MAC]string{} // serial numbers that would be there by then
	return eachBatch(ctx, list, report, func(ctx context.Context, requests []Request) ([]RequestResult, error) {
		results, err := r.Foresee(ctx, requests...)
		if err != nil {
			return nil, err
		}
		var issued []Request
		for i := range results {
			q, result := &requests[i], &results[i]
			if number, ok := foreseen[q.MAC]; ok && result.Issued {
				device := Device{MAC: q.MAC, SerialNumber: number, Status: Active}
				*result = RequestResult{Device: device, Err: r.unchanged(&device, q)}
			} else if result.Issued {
				issued = append(issued, *q)
			}
		}
		for _, q := range issued {
			foreseen[q.MAC] = q.SerialNumber
		}
		return results, nil
	})
}

// eachBatch hands the good lines of a list on, so many at a time.
func eachBatch(ctx context.Context, list io.Reader, report func(ImportLine), settle settler) error {
	lines := newLines(list)
	for {
		batch, more, err := lines.next(importBatch)
		if err != nil {
			return fmt.Errorf("reading the list of devices: %w", err)
		}
		if err := settle.lines(ctx, batch); err != nil {
			return err
		}
		for i := range batch {
			report(batch[i].ImportLine)
		}
		if !more || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// line is a Line and its request, which counts if Result.Err is nil.
type line struct {
	ImportLine
	request Request
}

// settler answers requests, in their order.
type settler func(context.Context, []Request) ([]RequestResult, error)

func (s settler) lines(ctx context.Context, batch []line) error {
	var requests []Request
	var of []*RequestResult
	for i := range batch {
		if batch[i].Result.Err == nil {
			requests, of = append(requests, batch[i].request), append(of, &batch[i].Result)
		}
	}
	if len(requests) == 0 {
		return nil
	}
	results, err := s(ctx, requests)
	if err != nil {
		return err
	}
	for i := range results {
		*of[i] = results[i]
	}
	return nil
}

// lines reads a list.
type lines struct {
	csv         *csv.Reader
	mac, number int // columns
	begun       bool
}

func newLines(list io.Reader) *lines {
	text := bufio.NewReader(list)
	if mark, err := text.Peek(3); err == nil && string(mark) == "\ufeff" {
		_, _ = text.Discard(len(mark)) // it is buffered
	}
	l := &lines{csv: csv.NewReader(text), number: 1}
	l.csv.FieldsPerRecord = -1
	l.csv.Comment = '#'
	l.csv.TrimLeadingSpace = true
	return l
}

// next reads up to n lines, and tells whether there may be more.
func (l *lines) next(n int) (batch []line, more bool, err error) {
	for len(batch) < n {
		fields, err := l.csv.Read()
		at := line{}
		bad, malformed := errors.AsType[*csv.ParseError](err)
		switch {
		case malformed:
			at.Number, at.Result.Err = bad.StartLine, fmt.Errorf("%w: %w", ErrRefused, bad.Err)
		case errors.Is(err, io.EOF):
			return batch, false, nil
		case err != nil:
			return nil, false, err
		default:
			at.Number, _ = l.csv.FieldPos(0)
			if !l.begun && l.header(fields) {
				l.begun = true
				continue
			}
			at.Text = strings.Join(fields, ",")
			at.request, at.Result.Err = l.request(fields)
		}
		l.begun = true
		batch = append(batch, at)
	}
	return batch, true, nil
}

// header takes the columns from a line that names them.
func (l *lines) header(fields []string) bool {
	mac, number := -1, -1
	for i, field := range fields {
		switch strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(field)) {
		case "mac", "macaddress":
			mac = i
		case "serial", "serialnumber", "sn":
			number = i
		}
	}
	if mac < 0 || number < 0 {
		return false
	}
	l.mac, l.number = mac, number
	return true
}

func (l *lines) request(fields []string) (Request, error) {
	if len(fields) <= max(l.mac, l.number) {
		return Request{}, fmt.Errorf("%w: a MAC and a serial number are expected, separated by a comma", ErrRefused)
	}
	mac, err := topic.ParseMAC(strings.TrimSpace(fields[l.mac]))
	if err != nil {
		return Request{}, fmt.Errorf("%w: %q is not a MAC address: 12 hex digits, without separators or with - or : between bytes", ErrRefused, fields[l.mac])
	}
	return Request{MAC: mac, SerialNumber: strings.TrimSpace(fields[l.number])}, nil
}
