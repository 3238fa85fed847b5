package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/stream"
	evaluator "github.com/f2mesh/f2mesh/services/alarm"
	"github.com/f2mesh/f2mesh/services/bridge"
	"github.com/f2mesh/f2mesh/services/console"
	"github.com/f2mesh/f2mesh/services/decoder"
	monitor "github.com/f2mesh/f2mesh/services/health"
	trimmer "github.com/f2mesh/f2mesh/services/keeper"
	"github.com/f2mesh/f2mesh/services/registrar/server"
	"github.com/f2mesh/f2mesh/services/writer"
)

const demoControllers = 5

// collectAt is GOGC unless the environment has it: with it the whole mesh takes at most 350 MiB at full
// speed on two cores (docs/performance.md).
const collectAt = 70

type upCommand struct {
	Parts        []string      `arg:"" optional:"" help:"Parts to start. Default: all (nats, postgres, pgbouncer, mosquitto, keeper, bridge, decoder, writer, registrar, health, alarm)."`
	Detach       bool          `short:"d" help:"Run in the background. Stop it with down."`
	Host         string        `help:"Listen address for controllers and people, with TLS: MQTT (8883), MQTT over WebSocket (9001), enrolment (8443), health API and console (8000). Everything else stays on loopback." env:"F2MESH_HOST" default:"127.0.0.1"`
	MQTTOrigins  []string      `help:"Additional web origins that may use MQTT over WebSocket: https://console.example.org" env:"F2MESH_MQTT_ORIGINS" name:"mqtt-origins"`
	Simulate     bool          `help:"Simulate the demo fleet." env:"F2MESH_SIMULATE" default:"true" negatable:""`
	Interval     time.Duration `help:"Report interval of a simulated component." env:"F2MESH_SIMULATE_INTERVAL" default:"5s"`
	Controllers  *int          `help:"Number of demo controllers. 0: none, you supply the metadata. Default: as at the last start, 5 at first." env:"F2MESH_CONTROLLERS"`
	Nodes        int           `help:"Number of NATS servers, 1 or 3. 3: a cluster of processes on this machine, each stream on all of them, to try it. A state directory keeps its number." env:"F2MESH_NODES" placeholder:"N"`
	SaveAllQueue bool          `help:"Have the broker save after every message. Slower, but a broker crash loses less." env:"F2MESH_SAVE_ALL_QUEUE" name:"autosave-on-changes"`
	MQTTRetained bool          `help:"Allow retained messages, which stay in the broker's memory. Otherwise the broker disconnects a controller that publishes one." env:"F2MESH_MQTT_RETAINED" name:"mqtt-retained"`
	WatchTopics  bool          `help:"Raise an alarm if a controller publishes on a topic of others. Needs the broker's debug log, which doubles its CPU time per message." env:"F2MESH_WATCH_TOPICS"`

	stream.Sizes
	Keeper    trimmer.Config   `embed:"" prefix:"keeper-"`
	Bridge    bridge.Config    `embed:"" prefix:"bridge-"`
	Decoder   decoder.Config   `embed:"" prefix:"decoder-"`
	Writer    writer.Config    `embed:"" prefix:"writer-"`
	Registrar server.Config    `embed:"" prefix:"registrar-"`
	Health    monitor.Config   `embed:"" prefix:"health-"`
	Console   console.Config   `embed:"" prefix:"health-console-"`
	Alarm     evaluator.Config `embed:"" prefix:"alarm-"`
	Secrets   mesh.SecretFlags `embed:""`
	Issuer    mesh.IssuerFlags `embed:""`
	poolingFlags
}

// Run runs a mesh until it is interrupted; with --detach it starts one and
// returns.
func (c *upCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	st := g.state()
	controllers := c.fleetSize(st)
	if controllers < 0 {
		return errors.New("--controllers must not be negative")
	}
	if c.Detach {
		return local.Detach(ctx, st)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	lock, err := st.Lock()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := mesh.NoteHolder(lock); err != nil {
		return err
	}
	out := os.Stdout
	chosen, err := local.ChoosePorts(st, c.Host, c.pooled(), out)
	if err != nil {
		return err
	}
	if term.IsTerminal(int(os.Stderr.Fd())) && g.LogLevel == "info" {
		file, err := local.OpenLog(st, out)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		log = g.logger(file)
	}
	cfg := meshConfig{
		Config: local.Config{
			Host: mesh.Loopback, Public: c.Host, Origins: c.MQTTOrigins, Retained: c.MQTTRetained, Ports: chosen, Controllers: controllers,
			Sizes: c.Sizes, Secrets: c.Secrets, Issuer: c.issuer(st), Pooling: c.pooled(), Nodes: c.Nodes,
		},
		WatchTopics: c.WatchTopics, Keeper: c.Keeper, Bridge: c.Bridge, Decoder: c.Decoder, Writer: c.Writer, Registrar: c.Registrar, Health: c.Health, Console: c.Console, Alarm: c.Alarm,
	}
	if c.SaveAllQueue {
		cfg.Autosave = mosquitto.Autosave{Changes: 1}
	}
	held := local.WatchWarnings(log)
	m, err := newMesh(st, cfg, slog.New(held))
	if err != nil {
		return err
	}
	if text := held.Take(); text != "" {
		fmt.Fprintln(out, plain.Lines(text))
	}
	if c.simulates(controllers) {
		m.Add(local.PartSimulator, simulate(m, c.Interval))
	}
	return m.Serve(ctx, c.Parts, held, out, c.simulates(controllers))
}

// fleetSize is how many demo controllers there are. A mesh without them, which is a
// real one, stays so.
func (c *upCommand) fleetSize(st mesh.State) int {
	if c.Controllers != nil {
		return *c.Controllers
	}
	if last, err := st.Last(); err == nil {
		return last.Controllers
	}
	return demoControllers
}

// issuer is who signs devices' certificates, as at the last start if nobody says: the
// broker must know the CA of those that are out there.
func (c *upCommand) issuer(st mesh.State) mesh.IssuerFlags {
	if c.Issuer.Issuer != "" {
		return c.Issuer
	}
	if last, err := st.Last(); err == nil {
		return last.Issuer
	}
	return c.Issuer
}

// simulates is whether the demo fleet sends.
func (c *upCommand) simulates(controllers int) bool {
	return c.Simulate && controllers > 0 && len(c.Parts) == 0
}

// pooled is false also where the chosen parts do without a pooler.
func (c *upCommand) pooled() bool {
	return c.Pooling && (len(c.Parts) == 0 || slices.Contains(c.Parts, local.PartPgBouncer))
}

// setByUp are the services' flags that up sets itself, for the servers that it starts.
var setByUp = []string{
	"bridge-mqtt-url", "bridge-mqtt-ca", "bridge-access-file",
	"decoder-metadata-dsn", "decoder-metadata-pooled-dsn", "decoder-metadata-schema",
	"writer-timescale-dsn", "writer-timescale-pooled-dsn",
	"registrar-registry-dsn", "registrar-claims-dsn", "registrar-metadata-schema", "registrar-devices-dir", "registrar-broker-dir",
	"registrar-server-cas", "registrar-est", "registrar-est-cert", "registrar-est-key", "registrar-mqtt-url", "registrar-mqtt-ca",
	"health-listen", "health-cert", "health-key", "health-cas", "health-console-readings-dsn", "health-console-metadata-dsn",
	"health-console-registry-dsn", "health-console-metadata-schema", "health-console-access",
}

// hideSetByUp leaves them out of up's help.
func hideSetByUp(k *kong.Kong) error {
	for _, command := range k.Model.Children {
		for _, flag := range command.Flags {
			flag.Hidden = flag.Hidden || command.Name == "up" && slices.Contains(setByUp, flag.Name)
		}
	}
	return nil
}

// AfterApply refuses them on the command line. Their environment variables may be there
// for the services themselves.
func (c *upCommand) AfterApply(ctx *kong.Context) error {
	for _, element := range ctx.Path {
		if element.Flag == nil || !slices.Contains(setByUp, element.Flag.Name) {
			continue
		}
		service, flag, _ := strings.Cut(element.Flag.Name, "-")
		return fmt.Errorf("up sets --%s itself, for the servers that it starts; for other servers run `f2mesh %s --%s`", element.Flag.Name, service, flag)
	}
	return nil
}
