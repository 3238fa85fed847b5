package ledger

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// claims are how often each digest was acknowledged and not yet found. A message
// that was found settles one claim.
type claims struct {
	open  map[event.ID]uint32 // event.Digest, which has the text form of an ID
	total uint64              // in open
}

func (c *claims) any() bool { return c.open != nil }

// settle takes one claim of the digest. known reports whether the digest was ever claimed.
func (c *claims) settle(digest [16]byte) (settled, known bool) {
	n, known := c.open[digest]
	if n == 0 {
		return false, known
	}
	c.open[digest] = n - 1
	c.total--
	return true, true
}

// receive settles a claim by a message of the interval.
func (c *claims) receive(digest [16]byte, result *Acknowledged) {
	switch settled, known := c.settle(digest); {
	case settled:
		result.Received++
	case known:
		result.More++
	}
}

func (a *audit) readClaims(context.Context) error {
	if a.options.Acknowledged == nil {
		return nil
	}
	a.claims.open = make(map[event.ID]uint32)
	lines := bufio.NewScanner(a.options.Acknowledged)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var digest event.ID
		if err := digest.UnmarshalText(line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		a.claims.open[digest]++
		a.claims.total++
	}
	a.report.Acknowledged.Claimed = a.claims.total
	return lines.Err()
}

// matchElsewhere looks for the claims that are left in all of RAW and DEAD_LETTER,
// so that "never received" means it.
func (a *audit) matchElsewhere(ctx context.Context) error {
	if a.claims.total == 0 {
		return nil
	}
	result := &a.report.Acknowledged
	visit := func(digest [16]byte) error {
		if settled, _ := a.claims.settle(digest); settled {
			result.Elsewhere++
		}
		if a.claims.total == 0 {
			return stream.ErrStop
		}
		return nil
	}
	raw := stream.Scan{Stream: stream.Raw}
	err := a.read(ctx, raw, func(m *stream.Message) error {
		if a.book.find(m.Sequence) != nil {
			return nil
		}
		return visit(event.Digest(m.Subject, m.Data))
	})
	if err != nil || a.claims.total == 0 {
		return err
	}
	letters := stream.Scan{Stream: stream.DeadLetter, Subjects: []string{"f2.dead." + stream.StageBridge + ".>"}, HeadersOnly: true}
	err = a.read(ctx, letters, func(m *stream.Message) error {
		l := deadletter.Parse(m)
		if a.takesBridge(&l) || l.Counted() || l.Removed {
			return nil
		}
		return visit(l.Digest)
	})
	if err != nil {
		return err
	}
	result.NotKept = min(a.claims.total, a.bridgeNotKept)
	result.NeverReceived = a.claims.total - result.NotKept
	a.listClaims(result)
	return nil
}

// listClaims names the digests that were not found.
func (a *audit) listClaims(result *Acknowledged) {
	for digest, n := range a.claims.open {
		if n > 0 {
			result.Digests = append(result.Digests, digest)
		}
	}
	slices.SortFunc(result.Digests, func(x, y event.ID) int { return bytes.Compare(x[:], y[:]) })
	result.Digests = slices.Clip(result.Digests[:min(len(result.Digests), a.options.MaxListed)])
}
