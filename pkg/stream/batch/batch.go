// Package batch gathers what arrives on a channel into batches: durable
// storage costs one sync a batch, so every stage waits a moment for company.
package batch

import (
	"context"
	"time"
)

// Gather appends items of in to buf until it holds limit of them, or linger
// has passed since the first, or in is closed, or ctx ends. It blocks until
// there is a first item; what it returns is empty only when in is closed or
// ctx has ended.
func Gather[T any](ctx context.Context, in <-chan T, buf []T, limit int, linger time.Duration) []T {
	return GatherBytes(ctx, in, buf, limit, linger, func(T) int { return 0 }, 1)
}

// GatherBytes is Gather, and stops behind the item with which the sizes of those
// that it appends reach maxBytes.
func GatherBytes[T any](ctx context.Context, in <-chan T, buf []T, limit int, linger time.Duration, size func(T) int, maxBytes int) []T {
	total := 0
	select {
	case item, ok := <-in:
		if !ok {
			return buf
		}
		buf = append(buf, item)
		total += size(item)
	case <-ctx.Done():
		return buf
	}
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for len(buf) < limit && total < maxBytes {
		select {
		case item, ok := <-in:
			if !ok {
				return buf
			}
			buf = append(buf, item)
			total += size(item)
			continue
		default:
		}
		select {
		case item, ok := <-in:
			if !ok {
				return buf
			}
			buf = append(buf, item)
			total += size(item)
		case <-timer.C:
			return buf
		case <-ctx.Done():
			return buf
		}
	}
	return buf
}
