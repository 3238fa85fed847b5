package ledger

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/f2mesh/f2mesh/pkg/event"
)

// matchAcknowledged looks every claimed id up, and those that are not in the
// interval in all of RAW and DEAD_LETTER, so that "never received" means it.
func (a *audit) matchAcknowledged(ctx context.Context) error {
	if a.options.Acknowledged == nil {
		return nil
	}
	lost, err := a.claim()
	if err != nil || len(lost) == 0 {
		return err
	}
	visit := func(id event.ID) error {
		delete(lost, id)
		if len(lost) == 0 {
			return errStop
		}
		return nil
	}
	outside := uint64(len(lost))
	for _, search := range []func(context.Context, func(event.ID) error) error{a.rawIDs, a.bridgeIDs} {
		if len(lost) == 0 {
			break
		}
		if err := search(ctx, visit); err != nil {
			return fmt.Errorf("searching outside the interval: %w", err)
		}
	}
	result := &a.report.Acknowledged
	result.NeverReceived = uint64(len(lost))
	result.Elsewhere = outside - result.NeverReceived
	for id := range lost {
		result.IDs = append(result.IDs, id)
	}
	slices.SortFunc(result.IDs, func(x, y event.ID) int { return bytes.Compare(x[:], y[:]) })
	result.IDs = slices.Clip(result.IDs[:min(len(result.IDs), a.options.MaxListed)])
	return nil
}

// claim reads the claims and answers those that are not in the interval.
func (a *audit) claim() (map[event.ID]struct{}, error) {
	lost := make(map[event.ID]struct{})
	result := &a.report.Acknowledged
	lines := bufio.NewScanner(a.options.Acknowledged)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var id event.ID
		if err := id.UnmarshalText(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		r := a.book.find(id)
		switch {
		case r == nil:
			lost[id] = struct{}{}
		case r.flags&acknowledged == 0:
			r.flags |= acknowledged
			result.Received++
		}
	}
	result.Claimed = result.Received + uint64(len(lost))
	return lost, lines.Err()
}
