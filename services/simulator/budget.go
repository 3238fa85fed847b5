package simulator

import "sync/atomic"

// malformedEvery is how often an unbounded run sends a malformed message.
const malformedEvery = 10

// budget numbers the fleet's messages. It is safe for concurrent use.
type budget struct {
	good, malformed int // good 0: no end
	next            atomic.Int64
}

func (b *budget) bounded() bool { return b.good > 0 }

func (b *budget) total() int64 { return int64(b.good) + int64(b.malformed) }

// claim takes up to n messages and returns the number of the first. No message is left
// when count is 0.
func (b *budget) claim(n int) (first int64, count int) {
	end := b.next.Add(int64(n))
	first = end - int64(n)
	if !b.bounded() || end <= b.total() {
		return first, n
	}
	return first, int(max(b.total()-first, 0))
}

func (b *budget) left() bool { return !b.bounded() || b.next.Load() < b.total() }

// isMalformed reports whether message i is malformed, and its number among the malformed
// ones. They are spread evenly over a bounded run.
func (b *budget) isMalformed(i int64) (n int64, ok bool) {
	if b.malformed == 0 {
		return 0, false
	}
	if !b.bounded() {
		n = i / malformedEvery
		return n, i%malformedEvery == 0 && n < int64(b.malformed)
	}
	n = i * int64(b.malformed) / b.total()
	return n, (i+1)*int64(b.malformed)/b.total() > n
}
