package simulator

import (
	"math"
	"time"
)

// clock makes a controller's timestamps. They increase by at least a microsecond, so that
// no two messages of a controller are the same event.
type clock struct {
	last   int64   // microseconds since 1970
	second int64   // of prefix
	prefix []byte  // "2026-05-04 12:30:59."
	day    float64 // -1..1, how warm and busy this hour is
}

const (
	timeFormat  = "2006-01-02 15:04:05."
	perSecond   = 1_000_000
	secondsADay = 24 * 60 * 60
)

// tick moves to the next timestamp.
func (c *clock) tick(now time.Time) {
	c.last = max(c.last+1, now.UnixMicro())
	if s := c.last / perSecond; s != c.second {
		c.second = s
		c.prefix = time.Unix(s, 0).UTC().AppendFormat(c.prefix[:0], timeFormat)
		c.day = -math.Cos(2 * math.Pi * float64(s%secondsADay) / secondsADay)
	}
}

// append appends the timestamp, in UTC.
func (c *clock) append(b []byte) []byte {
	b = append(b, c.prefix...)
	micros := c.last % perSecond
	for unit := int64(perSecond / 10); unit > 0; unit /= 10 {
		b = append(b, '0'+byte(micros/unit%10)) //nolint:gosec // bounded, or its low byte is what is meant
	}
	return b
}
