package payload

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// The accepted years, in UTC: 1970..2200.
const (
	firstSecond = 0
	afterLast   = 7289654400 // 2201-01-01T00:00:00Z
)

// readTimestamp parses the value of a "timestamp" member. Its errors are about the whole body.
func (s *scanner) readTimestamp(p *Payload) error {
	value, err := s.read()
	refused := func(format string, args ...any) error {
		return refuse(ReasonBadTimestamp, "member \"timestamp\": "+format, args...)
	}
	switch {
	case err != nil:
		return err
	case string(s.name) != nameTimestamp:
		return refuse(ReasonBadField, "member %s: %v", QuoteName(string(s.name)), misspelt(nameTimestamp))
	case !p.Time.IsZero():
		return refuse(ReasonDuplicateName, "member \"timestamp\" appears twice")
	case value.Kind() != jsontext.KindString:
		return refused("%s, not a string of YYYY-MM-DD HH:MM:SS[.ffffff] or RFC 3339", kindOf(value))
	}
	text, err := s.unquote(value)
	if err != nil {
		return err
	}
	t, ok := parseTime(text, s.zone, s.received)
	switch {
	case !ok:
		return refused("not a time of the form YYYY-MM-DD HH:MM:SS[.ffffff] or RFC 3339")
	case t.Unix() < firstSecond || t.Unix() >= afterLast:
		return refused("not in the years 1970 to 2200")
	}
	p.Time = t
	return nil
}

// parseTime parses YYYY-MM-DD, a space or T, HH:MM:SS, optionally a fraction of 1 to 9 digits,
// and optionally Z or ±HH:MM; without the last the time is in zone. Second 60 is refused:
// time.Time has no leap seconds.
func parseTime(b []byte, zone *time.Location, received time.Time) (time.Time, bool) {
	const seconds = "YYYY-MM-DD HH:MM:SS"
	if len(b) < len(seconds) || b[4] != '-' || b[7] != '-' || b[13] != ':' || b[16] != ':' {
		return time.Time{}, false
	}
	if b[10] != ' ' && b[10] != 'T' && b[10] != 't' {
		return time.Time{}, false
	}
	year, ok1 := decimal(b[0:4], 0, 9999)
	month, ok2 := decimal(b[5:7], 1, 12)
	day, ok3 := decimal(b[8:10], 1, 31)
	hour, ok4 := decimal(b[11:13], 0, 23)
	minute, ok5 := decimal(b[14:16], 0, 59)
	second, ok6 := decimal(b[17:19], 0, 59)
	if (!ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6) || day > daysIn(year, month) {
		return time.Time{}, false
	}
	nanosecond, rest, ok := cutFraction(b[len(seconds):])
	if !ok {
		return time.Time{}, false
	}
	offset, hasOffset, ok := parseOffset(rest)
	if !ok {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanosecond, time.UTC)
	if hasOffset {
		return t.Add(-offset), true
	}
	return resolve(t, zone, received).UTC(), true
}

// resolve returns the time at which clocks in zone show the date and time of wall. If there are
// two such times, or none because clocks were put forward, it returns the one nearest to
// received.
func resolve(wall time.Time, zone *time.Location, received time.Time) time.Time {
	if zone == time.UTC {
		return wall
	}
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), zone)
	if received.IsZero() {
		return t
	}
	start, end := t.ZoneBounds()
	shown := t.Hour() == wall.Hour() && t.Minute() == wall.Minute()
	best := t
	for _, near := range [...]time.Time{start.Add(-1), t, end} {
		if near.Sub(t).Abs() > maxClockChange { // also if the zone has no bound
			continue
		}
		_, offset := near.Zone()
		candidate := wall.Add(-time.Duration(offset) * time.Second).In(zone)
		if _, inForce := candidate.Zone(); shown && inForce != offset {
			continue // clocks showed another time then
		}
		if candidate.Sub(received).Abs() < best.Sub(received).Abs() {
			best = candidate
		}
	}
	return best
}

// maxClockChange is more than any change of a zone's clocks.
const maxClockChange = 25 * time.Hour

// cutFraction parses ".ffffff" at the start of b, if it is there.
func cutFraction(b []byte) (nanosecond int, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '.' {
		return 0, b, true
	}
	b = b[1:]
	n := 0
	for n < len(b) && '0' <= b[n] && b[n] <= '9' {
		n++
	}
	if n == 0 || n > 9 {
		return 0, nil, false
	}
	for i := range 9 {
		nanosecond *= 10
		if i < n {
			nanosecond += int(b[i] - '0')
		}
	}
	return nanosecond, b[n:], true
}

// parseOffset parses nothing, Z or ±HH:MM.
func parseOffset(b []byte) (offset time.Duration, found, ok bool) {
	switch {
	case len(b) == 0:
		return 0, false, true
	case len(b) == 1 && (b[0] == 'Z' || b[0] == 'z'):
		return 0, true, true
	case len(b) != len("+HH:MM") || b[3] != ':' || b[0] != '+' && b[0] != '-':
		return 0, false, false
	}
	hours, ok1 := decimal(b[1:3], 0, 23)
	minutes, ok2 := decimal(b[4:6], 0, 59)
	offset = time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if b[0] == '-' {
		offset = -offset
	}
	return offset, true, ok1 && ok2
}

// decimal parses digits as a number of low..high.
func decimal(b []byte, low, high int) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, low <= n && n <= high
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}
