package est

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/f2mesh/f2mesh/services/registrar"
)

// Refusals on the audit trail: more than these at a time are counted only, so that
// nobody fills it.
const (
	trailRate  = 1 // a second
	trailBurst = 100
)

// trail puts refusals on the audit trail.
type trail struct {
	recorder registrar.Recorder
	log      *slog.Logger
	limiter  *rate.Limiter
	untold   atomic.Int64
}

func newTrail(recorder registrar.Recorder, log *slog.Logger) *trail {
	return &trail{recorder: recorder, log: log, limiter: rate.NewLimiter(trailRate, trailBurst)}
}

func (t *trail) refused(ctx context.Context, f *refusal, address string) {
	if !t.limiter.Allow() {
		t.untold.Add(1)
		return
	}
	detail := "enrolment: " + f.reason
	if n := t.untold.Swap(0); n > 0 {
		detail += fmt.Sprintf(", and %d more refusals before", n)
	}
	actor := "unknown"
	if f.mac != "" {
		actor = f.mac.Dashed()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), operationTimeout)
	defer cancel()
	err := t.recorder.Record(ctx, registrar.Event{
		Time: time.Now().UTC(), Actor: actor, Action: registrar.Refuse, MAC: f.mac, Detail: detail, Address: address,
	})
	if err != nil {
		t.log.Error("recording a refusal", "mac", f.mac, "reason", f.reason, "address", address, "error", err)
	}
}
