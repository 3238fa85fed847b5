package replay

import (
	"fmt"
	"strings"
)

// maxLayout bounds how many bytes of a frame are laid out: Modbus has at most 256.
const maxLayout = 512

// Layout lays a frame out, a line a byte, against the data points that take it. Bytes
// that a data point needs and the frame does not have are shown as --.
func Layout(frame []byte, points []Point) []string {
	end := len(frame)
	for i := range points {
		if p := &points[i]; p.Offset >= 0 && p.Length > 0 && p.Offset < maxLayout {
			end = max(end, p.Offset+p.Length)
		}
	}
	var lines []string
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

// Values says for each data point what it decodes to, or why not.
func (r *Result) Values(points []Point) []string {
	lines := make([]string, 0, len(points))
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

func (r *Result) value(point int32) (value, detail string) {
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
