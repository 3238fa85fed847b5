package main

import (
	"fmt"
	"strconv"
	"strings"
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
	age, err := parseAge(s)
	if err != nil {
		return fmt.Errorf("%q is no time: use RFC 3339 (2026-11-24T10:00:00Z), a day in UTC (2026-11-24), or how long ago (90m, 1d12h)", s)
	}
	m.Time = time.Now().Add(-age)
	return nil
}

// parseAge is time.ParseDuration with days.
func parseAge(s string) (time.Duration, error) {
	var days time.Duration
	if before, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(before, 10, 16)
		if err != nil {
			return 0, err
		}
		days = time.Duration(n) * 24 * time.Hour
		if s = rest; s == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		err = strconv.ErrRange
	}
	return days + d, err
}
