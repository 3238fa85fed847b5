package est

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/f2mesh/f2mesh/pkg/server/web"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// The audit trail is kept for ten years, and nobody may fill it: the first refusals of
// each reason are entries of their own, the others are counted, in one entry an hour.
const (
	toldAtOnce = 10
	toldAgain  = 6 * time.Hour // until one more is told at once
	toldEvery  = time.Hour
)

// trail puts refusals on the audit trail.
type trail struct {
	recorder registrar.AuditTrail
	log      *slog.Logger

	mu      sync.Mutex        // guards reasons
	reasons map[string]*tally // a fixed set
}

// tally is what the trail does not have yet of one reason.
type tally struct {
	atOnce           *rate.Limiter
	refused          int
	sources, devices web.Tally
}

func newTrail(recorder registrar.AuditTrail, log *slog.Logger) *trail {
	return &trail{recorder: recorder, log: log, reasons: map[string]*tally{}}
}

// run counts until ctx ends. Then it tells of what it has counted.
func (t *trail) run(ctx context.Context) {
	ticker := time.NewTicker(toldEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			t.tell(ctx)
			return
		case <-ticker.C:
			t.tell(ctx)
		}
	}
}

func (t *trail) refused(ctx context.Context, f *refusal, address string) {
	actor := "unknown"
	if f.mac != "" {
		actor = f.mac.Dashed()
	}
	if t.count(f.reason, actor, address) {
		return
	}
	t.record(ctx, registrar.Event{Actor: actor, MAC: f.mac, Detail: "enrolment: " + f.reason, Address: address})
}

// count answers whether the refusal is only counted.
func (t *trail) count(reason, device, source string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.reasons[reason]
	if one == nil {
		one = &tally{atOnce: rate.NewLimiter(rate.Every(toldAgain), toldAtOnce), sources: web.Tally{}, devices: web.Tally{}}
		t.reasons[reason] = one
	}
	if one.atOnce.Allow() {
		return false
	}
	one.refused++
	one.sources.Add(source)
	one.devices.Add(device)
	return true
}

// tell puts what was counted on the trail, one entry for each reason.
func (t *trail) tell(ctx context.Context) {
	t.mu.Lock()
	var events []registrar.Event
	for _, reason := range slices.Sorted(maps.Keys(t.reasons)) {
		one := t.reasons[reason]
		if one.refused == 0 {
			continue
		}
		events = append(events, registrar.Event{Actor: "registrar", Detail: fmt.Sprintf("enrolment: %s, %d more times; from %s; as %s",
			reason, one.refused, one.sources, one.devices)})
		one.refused = 0
		clear(one.sources)
		clear(one.devices)
	}
	t.mu.Unlock()
	t.record(ctx, events...)
}

func (t *trail) record(ctx context.Context, events ...registrar.Event) {
	if len(events) == 0 {
		return
	}
	for i := range events {
		events[i].Time, events[i].Action = time.Now().UTC(), registrar.Refuse
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), operationTimeout)
	defer cancel()
	if err := t.recorder.Record(ctx, events...); err != nil {
		for i := range events {
			t.log.Error("recording a refusal", "mac", events[i].MAC, "detail", events[i].Detail, "address", events[i].Address, "error", err)
		}
	}
}
