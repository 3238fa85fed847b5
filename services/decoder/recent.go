package decoder

import "sync/atomic"

// recent remembers which stream sequences were stored last, so that a message
// that is delivered again only because its acknowledgement came late is not
// stored again behind newer ones of its controller. The zero value is ready.
type recent struct {
	sequences [1 << 16]atomic.Uint64
}

// seen is true for a redelivery of a sequence that was marked.
func (r *recent) seen(sequence, delivered uint64) bool {
	return delivered > 1 && r.sequences[sequence%uint64(len(r.sequences))].Load() == sequence
}

func (r *recent) mark(sequence uint64) {
	r.sequences[sequence%uint64(len(r.sequences))].Store(sequence)
}
