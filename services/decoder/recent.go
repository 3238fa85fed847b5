package decoder

import "sync/atomic"

// recent remembers which stream sequences were stored last. A message that is delivered again
// because its acknowledgement came late is then not stored again, after newer messages of its
// controller. The zero value is ready to use.
type recent struct {
	sequences [1 << 16]atomic.Uint64
}

// seen reports whether a delivery is a redelivery of a marked sequence.
func (r *recent) seen(sequence, delivered uint64) bool {
	return delivered > 1 && r.sequences[sequence%uint64(len(r.sequences))].Load() == sequence
}

func (r *recent) mark(sequence uint64) {
	r.sequences[sequence%uint64(len(r.sequences))].Store(sequence)
}
