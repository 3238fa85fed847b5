package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/bridge"
	"github.com/f2mesh/f2mesh/services/decoder"
	monitor "github.com/f2mesh/f2mesh/services/health"
	trimmer "github.com/f2mesh/f2mesh/services/keeper"
	"github.com/f2mesh/f2mesh/services/registrar/server"
	"github.com/f2mesh/f2mesh/services/writer"
)

const (
	pgbouncerPort   = 6432
	loopback        = "127.0.0.1"
	demoControllers = 5
)

type upCommand struct {
	Parts        []string      `arg:"" optional:"" help:"Parts to start. Default: all (nats, postgres, pgbouncer, mosquitto, keeper, bridge, decoder, writer, registrar, health)."`
	Detach       bool          `short:"d" help:"Run in the background. Stop it with down."`
	Host         string        `help:"Listen address for controllers and people, with TLS: MQTT (8883), MQTT over WebSocket (9001), enrolment (8443), health API (8000). Everything else stays on loopback." env:"F2MESH_HOST" default:"127.0.0.1"`
	MQTTOrigins  []string      `help:"Additional web origins that may use MQTT over WebSocket: https://console.example.org" env:"F2MESH_MQTT_ORIGINS" name:"mqtt-origins"`
	Simulate     bool          `help:"Simulate the demo fleet." env:"F2MESH_SIMULATE" default:"true" negatable:""`
	Interval     time.Duration `help:"Report interval of a simulated component." env:"F2MESH_SIMULATE_INTERVAL" default:"5s"`
	Controllers  *int          `help:"Number of demo controllers. 0: none, you supply the metadata. Default: as at the last start, 5 at first." env:"F2MESH_CONTROLLERS"`
	SaveAllQueue bool          `help:"Have the broker save after every message. Slower, but a broker crash loses less." env:"F2MESH_SAVE_ALL_QUEUE" name:"autosave-on-changes"`
	MQTTRetained bool          `help:"Allow retained messages, which stay in the broker's memory. Otherwise the broker disconnects a controller that publishes one." env:"F2MESH_MQTT_RETAINED" name:"mqtt-retained"`
	WatchTopics  bool          `help:"Raise an alarm if a controller publishes on a topic of others. Needs the broker's debug log, which doubles its CPU time per message." env:"F2MESH_WATCH_TOPICS"`

	stream.Sizes
	Keeper    trimmer.Config `embed:"" prefix:"keeper-"`
	Bridge    bridge.Config  `embed:"" prefix:"bridge-"`
	Decoder   decoder.Config `embed:"" prefix:"decoder-"`
	Writer    writer.Config  `embed:"" prefix:"writer-"`
	Registrar server.Config  `embed:"" prefix:"registrar-"`
	Health    monitor.Config `embed:"" prefix:"health-"`
	Secrets   secretFlags    `embed:""`
	Issuer    issuerFlags    `embed:""`
	poolingFlags
}

// Run runs a mesh until it is interrupted; with --detach it starts one and
// returns.
func (c *upCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	st := state{dir: g.StateDir}
	controllers := c.fleetSize(st)
	if controllers < 0 {
		return errors.New("--controllers must not be negative")
	}
	if c.Detach {
		return c.detach(ctx, st)
	}
	lock, err := st.lock()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := hold(lock); err != nil {
		return err
	}
	out := os.Stdout
	chosen, err := c.choosePorts(st, out)
	if err != nil {
		return err
	}
	if isTerminal(os.Stderr) && g.LogLevel == "info" {
		file, err := openLog(st, out)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		log = g.logger(file)
	}
	cfg := meshConfig{
		localConfig: localConfig{
			Host: loopback, Public: c.Host, Origins: c.MQTTOrigins, Retained: c.MQTTRetained, Ports: chosen, Controllers: controllers,
			Sizes: c.Sizes, Secrets: c.Secrets, Issuer: c.issuer(st), Pooling: c.pooled(),
		},
		WatchTopics: c.WatchTopics, Keeper: c.Keeper, Bridge: c.Bridge, Decoder: c.Decoder, Writer: c.Writer, Registrar: c.Registrar, Health: c.Health,
	}
	if c.SaveAllQueue {
		cfg.Autosave = mosquitto.Autosave{Changes: 1}
	}
	held := newTrouble(log)
	m, err := newMesh(st, cfg, slog.New(held))
	if err != nil {
		return err
	}
	if text := held.take(); text != "" {
		fmt.Fprintln(out, plain.Lines(text))
	}
	if c.simulates(controllers) {
		m.Add(partSimulator, simulate(m, c.Interval))
	}
	return c.serve(ctx, m, held, out)
}

// openLog is where the log goes when people see the summary and the rates.
func openLog(st state, out io.Writer) (*os.File, error) {
	file, err := os.OpenFile(st.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	fmt.Fprintf(out, "starting; the log is in %s\n", st.logFile())
	return file, nil
}

// fleetSize is how many demo controllers there are. A mesh without them, which is a
// real one, stays so.
func (c *upCommand) fleetSize(st state) int {
	if c.Controllers != nil {
		return *c.Controllers
	}
	if last, err := st.last(); err == nil {
		return last.Controllers
	}
	return demoControllers
}

// issuer is who signs devices' certificates, as at the last start if nobody says: the
// broker must know the CA of those that are out there.
func (c *upCommand) issuer(st state) issuerFlags {
	if c.Issuer.Issuer != "" {
		return c.Issuer
	}
	if last, err := st.last(); err == nil {
		return last.Issuer
	}
	return c.Issuer
}

// simulates is whether the demo fleet sends.
func (c *upCommand) simulates(controllers int) bool {
	return c.Simulate && controllers > 0 && len(c.Parts) == 0
}

// serve starts the parts, shows them, and stops them when ctx ends.
func (c *upCommand) serve(ctx context.Context, m *localMesh, held trouble, out *os.File) error {
	defer func() {
		fmt.Fprintln(out, "\nstopping")
		m.StopAll()
		fmt.Fprintln(out, "stopped; the data stay in", m.state.dir)
	}()
	names := m.Names()
	for _, name := range c.Parts {
		if !slices.Contains(names, name) {
			return fmt.Errorf("unknown part %q; known: %v", name, names)
		}
	}
	for _, name := range names {
		if len(c.Parts) > 0 && !slices.Contains(c.Parts, name) {
			continue
		}
		started := time.Now()
		stop := held.sayWaiting(out, name, m.state.logFile(), patienceAtStart)
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
	if err := m.state.tools(ctx, m.secrets, m.describe()); err != nil {
		return err
	}
	if err := m.state.save(m.describe()); err != nil {
		return err
	}
	if err := m.summary(ctx, out, c.simulates(m.cfg.Controllers)); err != nil {
		return err
	}
	m.showRates(ctx, out)
	return nil
}

// choosePorts takes the ports of the last run, or the standard ones, and says
// where one was taken.
func (c *upCommand) choosePorts(st state, out io.Writer) (ports, error) {
	want := ports{MQTT: 1883, MQTTTLS: 8883, People: 1884, WebSocket: 9001, NATS: 4222, Postgres: 5432, PgBouncer: pgbouncerPort, HTTP: 8000, EST: 8443}
	if last, err := st.last(); err == nil {
		want = last.Ports
		want.EST, want.People = cmp.Or(want.EST, 8443), cmp.Or(want.People, 1884) // of a version that had none
	}
	switch {
	case !c.pooled():
		want.PgBouncer = 0
	case want.PgBouncer == 0: // the last run was without
		want.PgBouncer = pgbouncerPort
	}
	for _, p := range []struct {
		name, host string
		port       *int
	}{
		{"MQTT", loopback, &want.MQTT},
		{"MQTT over mTLS", c.Host, &want.MQTTTLS},
		{"MQTT for people", loopback, &want.People},
		{"MQTT over WebSocket", c.Host, &want.WebSocket},
		{"NATS", loopback, &want.NATS},
		{"PostgreSQL", loopback, &want.Postgres},
		{"PgBouncer", loopback, &want.PgBouncer},
		{"HTTP", c.Host, &want.HTTP},
		{"EST", c.Host, &want.EST},
	} {
		if *p.port == 0 {
			continue // of a part that does not run
		}
		free, err := port.Pick(p.host, *p.port)
		if err != nil {
			return ports{}, err
		}
		if free != *p.port {
			fmt.Fprintf(out, "port %d is taken, %s is on %d\n", *p.port, p.name, free)
		}
		*p.port = free
	}
	return want, nil
}

// pooled is false also where the chosen parts do without a pooler.
func (c *upCommand) pooled() bool {
	return c.Pooling && (len(c.Parts) == 0 || slices.Contains(c.Parts, partPgBouncer))
}

// detach starts this command again as a process of its own, waits until its
// mesh is up, and shows what it shows.
func (c *upCommand) detach(ctx context.Context, st state) error {
	if st.locked() {
		return errAlreadyRunning
	}
	if err := os.MkdirAll(st.dir, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	file, err := os.OpenFile(st.logFile(), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer func() { _ = file.Close() }()
	logged, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	if err := os.Remove(st.path("up.done")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the last start: %w", err)
	}
	shown, err := os.Create(st.path("up.out"))
	if err != nil {
		return fmt.Errorf("opening the output: %w", err)
	}
	defer func() { _ = shown.Close() }()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(a string) bool { return a == "--detach" || a == "-d" })
	child := exec.Command(self, args...) //nolint:gosec,noctx // this program, which outlives this process
	child.Args[0] = os.Args[0]           // for what it tells people to type
	child.Stdout, child.Stderr = shown, file
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return fmt.Errorf("starting in the background: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	return follow(ctx, st, ended, func() string { return lastError(file, logged) })
}

// lastError is what the program in the background wrote to the log, beyond its
// first skip bytes, as the cause of its end.
func lastError(log io.ReaderAt, skip int64) (cause string) {
	lines := bufio.NewScanner(io.NewSectionReader(log, skip, math.MaxInt64-skip))
	for lines.Scan() {
		if message, ok := strings.CutPrefix(lines.Text(), "f2mesh: "); ok {
			cause = message
		}
	}
	return cause
}

// follow copies what the child shows until its summary is complete.
func follow(ctx context.Context, st state, ended <-chan error, cause func() string) error {
	in, err := os.Open(st.path("up.out"))
	if err != nil {
		return fmt.Errorf("reading the output: %w", err)
	}
	defer func() { _ = in.Close() }()
	for {
		up := exists(st.path("up.done"))
		if _, err := io.Copy(os.Stdout, in); err != nil {
			return fmt.Errorf("reading the output: %w", err)
		}
		if up {
			fmt.Printf("running in the background; the log is in %s, stop it with: %s\n", st.logFile(), st.command("down"))
			return nil
		}
		select {
		case err := <-ended:
			_, _ = io.Copy(os.Stdout, in)
			if cause := cause(); cause != "" {
				err = errors.New(cause)
			}
			return fmt.Errorf("the mesh did not come up: %w; the log is in %s", err, st.logFile())
		case <-ctx.Done():
			return fmt.Errorf("interrupted while the mesh was starting; it goes on in the background: %s stops it", st.command("down"))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
