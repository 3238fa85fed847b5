package keeper

import (
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	f2stream "github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	// slack is how far above its share a stream may be before it is trimmed again, at most
	// slackBytes: JetStream removes whole blocks of 8 MiB more cheaply than parts of them.
	slack      = 0.05
	slackBytes = 8 << 20
	// step is how many bytes are trimmed at once. nats-server 2.15.2 reads each block before it
	// removes it, and stores nothing meanwhile.
	step = 16 << 20
	// mostBytes is the assumed maximum of bytes that arrive in a second, above all
	// measurements.
	mostBytes = 40 << 20
	// leastPause and mostPause are the shortest and longest time between two looks.
	leastPause = 50 * time.Millisecond
	mostPause  = 5 * time.Second
	retryPause = time.Second
	// stepPause is between two steps, for those who store.
	stepPause = 20 * time.Millisecond
	// mostByAge is how many messages are trimmed by age in one step.
	mostByAge = 10_000
	// fillingFrom is the share of a stream that must wait before the alarm is raised.
	fillingFrom = 0.05
	// steady is how long at most a stream must fill before the alarm is raised: a burst ends
	// by itself.
	steady = 10 * time.Second
)

// fill is how full a stream is.
type fill struct {
	limit int64
	state *jetstream.StreamState
	floor uint64 // all messages up to this sequence are acknowledged
}

// mean returns the mean size of a message.
func (f *fill) mean() float64 {
	if f.state.Msgs == 0 {
		return 0
	}
	return float64(f.state.Bytes) / float64(f.state.Msgs)
}

// backlog returns the size of the messages that are not acknowledged.
func (f *fill) backlog() float64 {
	return f.mean() * float64(min(f.state.LastSeq-f.floor, f.state.Msgs))
}

// most returns the size above which the stream is trimmed: a little more than its share, but
// so that there is room for a batch; half of a small stream.
func (f *fill) most(share float64) float64 {
	limit := float64(f.limit)
	return max(min(share*limit+f.slack(), limit-f2stream.BatchRoom), limit/2)
}

// slack returns how much is trimmed below that size.
func (f *fill) slack() float64 { return min(slack*float64(f.limit), slackBytes) }

// trim returns the sequence up to which the stream is to be trimmed now; there is nothing to
// do if that is below its first. more means that another step should follow after stepPause.
//
// The age is only known of the first message. So trimming by age goes in steps: a quarter of
// the messages that are too old if all are evenly spread. It may remove some messages that are
// not quite as old.
func (f *fill) trim(share float64, tail uint64, before time.Time) (to uint64, more bool) {
	var n float64
	if most := f.most(share); f.limit > 0 && float64(f.state.Bytes) > most {
		bytes := float64(f.state.Bytes) - most + f.slack()
		n, more = math.Ceil(min(bytes, step)/f.mean()), bytes > step
	}
	if f.state.Msgs > 0 && f.state.FirstTime.Before(before) {
		spread := f.state.LastTime.Sub(f.state.FirstTime).Seconds() + 1
		old := float64(f.state.Msgs) / spread * before.Sub(f.state.FirstTime).Seconds()
		if by := min(max(math.Ceil(old/4), 1), mostByAge); by > n {
			n, more = by, true
		}
	}
	highest := min(f.floor, f.state.LastSeq-min(f.tailOf(tail, share), f.state.LastSeq))
	if n == 0 || highest < f.state.FirstSeq {
		return 0, false
	}
	to = f.state.FirstSeq + uint64(n) - 1
	if to > highest {
		return highest, false
	}
	return to, more
}

// tailOf returns how many of the last messages stay. Large ones may not take more than half of
// the share: otherwise there would be no room for others.
func (f *fill) tailOf(tail uint64, share float64) uint64 {
	if mean := f.mean(); f.limit > 0 && mean > 0 {
		return min(tail, uint64(share/2*float64(f.limit)/mean))
	}
	return tail
}

// pause returns a quarter of the time in which the stream could become full.
func (f *fill) pause() time.Duration {
	if f.limit <= 0 {
		return mostPause
	}
	room := max(0, float64(f.limit)-float64(f.state.Bytes))
	return min(max(time.Duration(room/mostBytes/4*float64(time.Second)), leastPause), mostPause)
}

// growth measures how the backlog grows and how fast messages arrive.
type growth struct {
	samples []sample // oldest first
}

type sample struct {
	at                time.Time
	backlog, received float64 // bytes; only differences of received are meaningful
}

const (
	growthWindow = 2 * time.Minute
	growthLeast  = time.Second // shortest time between two samples that give a rate
	growthEvery  = 500 * time.Millisecond
)

func (g *growth) add(at time.Time, backlog, received float64) {
	if n := len(g.samples); n > 0 && at.Sub(g.samples[n-1].at) < growthEvery {
		return
	}
	g.samples = append(g.samples, sample{at, backlog, received})
	for len(g.samples) > 2 && at.Sub(g.samples[0].at) > growthWindow {
		g.samples = g.samples[1:]
	}
}

// full returns when room will be used up if the backlog keeps on growing; fills is false if it
// does not grow.
func (g *growth) full(room float64) (left time.Duration, fills bool) {
	rate := g.rate(func(s sample) float64 { return s.backlog })
	if rate <= 0 {
		return 0, false
	}
	return seconds(max(0, room) / rate), true
}

// arriving returns how many bytes arrive in a second.
func (g *growth) arriving() float64 {
	return max(0, g.rate(func(s sample) float64 { return s.received }))
}

func (g *growth) rate(of func(sample) float64) float64 {
	if len(g.samples) < 2 {
		return 0
	}
	first, last := g.samples[0], g.samples[len(g.samples)-1]
	if last.at.Sub(first.at) < growthLeast {
		return 0
	}
	return (of(last) - of(first)) / last.at.Sub(first.at).Seconds()
}

// seconds returns n seconds, at most a hundred years.
func seconds(n float64) time.Duration {
	return time.Duration(min(n, 100*365*86400) * float64(time.Second))
}
