package main

import (
	"context"
	"time"

	"github.com/f2mesh/f2mesh/pkg/supervisor"
)

type auditCommand struct{}
type simulateCommand struct{}

func (m *mesh) simulate(every time.Duration) supervisor.Run {
	return func(ctx context.Context, ready func()) error { ready(); <-ctx.Done(); return nil }
}
