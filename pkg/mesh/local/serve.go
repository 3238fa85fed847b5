package local

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/server/port"
)

const pgbouncerPort = 6432

// Serve starts the parts, all without names, shows them, and stops them when ctx ends;
// with readings it waits for the first rows and shows them. If a part is stuck, Serve stops
// the others and runs this program anew, in the same process.
func (m *Parts) Serve(ctx context.Context, parts []string, held Warnings, out *os.File, readings bool) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-m.Stuck():
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() {
		fmt.Fprintln(out, "\nstopping")
		m.StopAll()
		select {
		case <-m.Stuck():
			fmt.Fprintln(out, "a server does not stop: starting anew")
			err = runAnew()
		default:
			fmt.Fprintln(out, "stopped; the data stay in", m.State.Dir)
		}
	}()
	names := m.Names()
	for _, name := range parts {
		if !slices.Contains(names, name) {
			return fmt.Errorf("unknown part %q; known: %v", name, names)
		}
	}
	for _, name := range names {
		if len(parts) > 0 && !slices.Contains(parts, name) {
			continue
		}
		started := time.Now()
		stop := held.sayWaiting(out, name, m.State.LogFile(), patienceAtStart)
		err := m.Start(ctx, name)
		stop()
		if err != nil {
			if ctx.Err() != nil {
				return nil // interrupted while starting
			}
			return err
		}
		fmt.Fprintf(out, "  %-10s %s\n", name, time.Since(started).Round(time.Millisecond))
	}
	if err := m.State.WriteToolFiles(ctx, m.Secrets, m.Describe()); err != nil {
		return err
	}
	if err := m.State.Save(m.Describe()); err != nil {
		return err
	}
	if err := m.summary(ctx, out, readings); err != nil {
		return err
	}
	m.showRates(ctx, out)
	return nil
}

// runAnew replaces this process by the same program with the same arguments. It returns only
// with an error. Locks and listeners end with the old program.
func runAnew() error {
	program, err := os.Executable()
	if err == nil {
		err = syscall.Exec(program, os.Args, os.Environ()) //nolint:gosec // this program
	}
	return fmt.Errorf("running this program anew: %w", err)
}

// ChoosePorts takes the ports of the last run, or the standard ones, and says
// where one was taken.
func ChoosePorts(st mesh.State, host string, pooled bool, out io.Writer) (mesh.Ports, error) {
	want := mesh.Ports{MQTT: 1883, MQTTTLS: 8883, People: 1884, WebSocket: 9001, NATS: 4222, Postgres: 5432, PgBouncer: pgbouncerPort, HTTP: 8000, EST: 8443}
	if last, err := st.Last(); err == nil {
		want = last.Ports
		want.EST, want.People = cmp.Or(want.EST, 8443), cmp.Or(want.People, 1884) // of a version that had none
	}
	switch {
	case !pooled:
		want.PgBouncer = 0
	case want.PgBouncer == 0: // the last run was without
		want.PgBouncer = pgbouncerPort
	}
	for _, p := range []struct {
		name, host string
		port       *int
	}{
		{"MQTT", mesh.Loopback, &want.MQTT},
		{"MQTT over mTLS", host, &want.MQTTTLS},
		{"MQTT for people", mesh.Loopback, &want.People},
		{"MQTT over WebSocket", host, &want.WebSocket},
		{"NATS", mesh.Loopback, &want.NATS},
		{"PostgreSQL", mesh.Loopback, &want.Postgres},
		{"PgBouncer", mesh.Loopback, &want.PgBouncer},
		{"HTTP", host, &want.HTTP},
		{"EST", host, &want.EST},
	} {
		if *p.port == 0 {
			continue // of a part that does not run
		}
		free, err := port.Pick(p.host, *p.port)
		if err != nil {
			return mesh.Ports{}, err
		}
		if free != *p.port {
			fmt.Fprintf(out, "port %d is taken, %s is on %d\n", *p.port, p.name, free)
		}
		*p.port = free
	}
	return want, nil
}
