package batch

import "time"

// Few is up to how many messages are stored one by one, each with a sync of its own. That takes less
// time than an atomic batch: nats-server makes files for it, syncs them, and then stores the messages.
// On a disk whose syncs take a millisecond more than four would take longer.
const Few = 4

// period is how often a Linger looks at the rate.
const period = 100 * time.Millisecond

// Linger chooses how long a batch waits for company: for Max if more than Few items come
// in that time at the present rate, and else not at all. So a single message does not wait for
// nothing, and many do not cost a batch each. It is not safe for concurrent use.
type Linger struct {
	Max time.Duration
	Few int

	since time.Time // the period's begin
	count int       // items since then
	long  bool
}

// After returns the wait of the batch that follows one of n items. The first batch waits for Max.
func (l *Linger) After(n int) time.Duration {
	now := time.Now()
	l.count += n
	switch elapsed := now.Sub(l.since); {
	case l.since.IsZero():
		l.since, l.count, l.long = now, 0, true
	case elapsed >= period:
		l.long = float64(l.count)*float64(l.Max) > float64(l.Few)*float64(elapsed)
		l.since, l.count = now, 0
	}
	if l.long {
		return l.Max
	}
	return 0
}
