package main

import (
	"fmt"
	"time"
)

// pointInTime is a flag's point in time: RFC 3339, a day, or an age such as 90m or 1d12h.
type pointInTime struct{ time.Time }

// UnmarshalText reads the flag's value.
func (m *pointInTime) UnmarshalText(text []byte) error {
	s := string(text)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			m.Time = t
			return nil
		}
	}
	age, err := parseDuration(s)
	if err != nil || age < 0 {
		return fmt.Errorf("%q is no time: use RFC 3339 (2026-11-24T10:00:00Z), a day in UTC (2026-11-24), or how long ago (90m, 1d12h)", s)
	}
	m.Time = time.Now().Add(-age)
	return nil
}
