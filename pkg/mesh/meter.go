package mesh

import (
	"context"
	"sync"
	"time"
)

// meterInterval is how often the writer's counter is read.
const meterInterval = 25 * time.Millisecond

// Counters of the services that a rotation reads.
const (
	figureIn  = "f2mesh_bridge_messages_received_total"
	FigureOut = "f2mesh_writer_messages_received_total" // counts behind COMMIT
)

// flow is what went through the mesh during a rotation.
type flow struct {
	In  float64 `json:"messages_in"`
	Out float64 `json:"messages_out"`
	// Gap is the longest time in which nothing was committed, give or take
	// meterInterval. It says something only while messages flow, and leaves out while
	// the operator's own connection was away.
	Gap time.Duration `json:"longest_gap_ns"`
}

// meter measures flow over NATS.
type meter struct {
	services  Services
	instances map[string]int
	in        float64
	cancel    context.CancelFunc
	done      sync.WaitGroup
	flow      flow // of the goroutine until done
}

// measure begins, stop ends it.
func measure(ctx context.Context, services Services) (*meter, error) {
	m := &meter{services: services}
	var err error
	if m.instances, err = services.instances(ctx); err != nil {
		return nil, err
	}
	m.in = m.figure(ctx, "bridge", figureIn)
	ctx, m.cancel = context.WithCancel(ctx)
	m.done.Go(func() { m.watch(ctx) })
	return m, nil
}

// figure answers -1 if the service does not.
func (m *meter) figure(ctx context.Context, service, name string) float64 {
	if m.instances[service] == 0 {
		return -1
	}
	all, err := m.services.figures(ctx, service, m.instances[service])
	if err != nil {
		return -1
	}
	return all[name]
}

func (m *meter) watch(ctx context.Context) {
	began := m.figure(ctx, "writer", FigureOut)
	last, at := began, time.Now()
	blind := false // since at, for a while: nobody knows what was committed
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(meterInterval):
		}
		now := m.figure(ctx, "writer", FigureOut)
		blind = blind || !m.services.IsConnected()
		if now < 0 || now == last && !blind {
			continue
		}
		if began < 0 {
			began = now
		}
		if !blind {
			m.flow.Gap = max(m.flow.Gap, time.Since(at))
		}
		m.flow.Out = now - began
		last, at, blind = now, time.Now(), false
	}
	if !blind {
		m.flow.Gap = max(m.flow.Gap, time.Since(at))
	}
}

// stop answers what went through since measure.
func (m *meter) stop(ctx context.Context) flow {
	m.cancel()
	m.done.Wait()
	if in := m.figure(ctx, "bridge", figureIn); in >= 0 && m.in >= 0 {
		m.flow.In = in - m.in
	}
	return m.flow
}
