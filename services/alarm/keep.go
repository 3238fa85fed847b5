package alarm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Bounds of the time between two looks at what ALARM is about to drop.
const (
	keepAtLeast = time.Second
	keepAtMost  = time.Minute
)

// keep stores again the states of alarms that somebody needs and that ALARM is about to drop, by its age
// or its size. Otherwise an alarm that stays raised for months would vanish, and be raised a second time.
// It returns when to look again.
func (s *store) keep(ctx context.Context) (next time.Duration, err error) {
	info, err := s.streams.Info(ctx, stream.Alarm)
	if err != nil {
		return keepAtMost, err
	}
	maxAge := info.Config.MaxAge
	next = keepAtMost
	if maxAge > 0 {
		next = min(max(maxAge/10, keepAtLeast), keepAtMost)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, id := range s.ids((*alert.Entry).Needed) {
		i := s.instance(id)
		if !oldest(info, i) {
			continue
		}
		group.Go(func() error {
			seq, err := send(ctx, s.streams.JetStream(), &i.entry, nats.Header{alert.HeaderKept: {"1"}}, i.seq)
			if errors.Is(err, errOvertaken) {
				return s.reload(ctx, id, i) // what is stored now is newer
			}
			if err != nil {
				return fmt.Errorf("keeping alarm %s: %w", id, err)
			}
			i.seq, i.stored = seq, time.Now()
			return nil
		})
	}
	return next, group.Wait()
}

// oldest reports whether an alarm's state is in the older half of what ALARM may keep.
func oldest(info *jetstream.StreamInfo, i *instance) bool {
	if maxAge := info.Config.MaxAge; maxAge > 0 && time.Since(i.stored) > maxAge/2 {
		return true
	}
	full := info.Config.MaxBytes > 0 && info.State.Bytes > uint64(info.Config.MaxBytes)/2
	return full && 2*i.seq < info.State.FirstSeq+info.State.LastSeq
}
