package plain

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// days are the units that time.ParseDuration lacks, in hours.
var days = map[byte]float64{'d': 24, 'w': 7 * 24} //nolint:gochecknoglobals // a constant

var daysPattern = regexp.MustCompile(`[0-9]*\.?[0-9]+[dw]`) //nolint:gochecknoglobals // a constant

// ParseDuration reads a duration as time.ParseDuration does, and also days of 24
// hours and weeks: 1d, 1.5d, 2w3d12h.
func ParseDuration(text string) (time.Duration, error) {
	inHours := daysPattern.ReplaceAllStringFunc(text, func(part string) string {
		number, err := strconv.ParseFloat(part[:len(part)-1], 64)
		if err != nil {
			return part
		}
		return strconv.FormatFloat(number*days[part[len(part)-1]], 'f', -1, 64) + "h"
	})
	d, err := time.ParseDuration(inHours)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: a number with a unit is, such as 90s, 15m, 12h, 1d or 2w", text)
	}
	return d, nil
}

// PointInTime is a flag's point in time: RFC 3339, a day, or an age such as 90m or 1d12h.
type PointInTime struct{ time.Time }

// UnmarshalText reads the flag's value.
func (m *PointInTime) UnmarshalText(text []byte) error {
	s := string(text)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			m.Time = t
			return nil
		}
	}
	age, err := ParseDuration(s)
	if err != nil || age < 0 {
		return fmt.Errorf("%q is no time: use RFC 3339 (2026-11-24T10:00:00Z), a day in UTC (2026-11-24), or how long ago (90m, 1d12h)", s)
	}
	m.Time = time.Now().Add(-age)
	return nil
}
