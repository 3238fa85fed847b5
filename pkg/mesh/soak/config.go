package soak

import (
	"context"
	"log/slog"
	"time"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
)

// Config says how to run.
type Config struct {
	Messages    int           `help:"Minimum number of messages: they are sent until the last fault is over." default:"20000"`
	Faults      int           `help:"Number of faults, spread over the messages." default:"8"`
	Seed        uint64        `help:"Seed of the schedule of faults. The same seed has the same schedule. 0: one from the clock, which the report shows."`
	Rate        int           `help:"Messages per second." default:"500"`
	Controllers int           `help:"Number of simulated controllers." default:"8"`
	Kinds       []string      `help:"Kinds of faults. Default: all that this machine can do." placeholder:"KIND"`
	Target      string        `help:"Part or link that all faults hit. Default: any that their kinds can."`
	Bound       time.Duration `help:"How long before its end the broker may have acknowledged messages that it then loses." default:"2s"`
	JudgeSpeed  bool          `help:"Fail if a part recovers too slowly from a kill, or a backlog drains too slowly. Only a machine that does nothing else can judge this."`
	Drain       bool          `help:"After the faults, measure how fast a backlog drains that came at a quarter of the maximum rate: it should be 3 times as fast."`
	UpgradeFrom string        `help:"Program of an earlier release, which runs the services until the fault \"upgrade\"." type:"existingfile"`
	Vault       string        `help:"Program of HashiCorp Vault, which then has the secrets of the mesh. Default: vault on PATH. Without it services read secret files, and faults of Vault are skipped." env:"F2MESH_VAULT" placeholder:"FILE"`
	Compose     string        `help:"Directory of compose.yaml: break the mesh that runs in its containers, which must be one for tests. Its containers are killed, and it keeps the messages of the run. Needs Docker and the rights to read secrets/." placeholder:"DIR" type:"existingdir"`
	Dir         string        `help:"Directory for the mesh and its disk. Default: the system's temporary directory." type:"existingdir"`

	Program  string            `kong:"-"` // f2mesh itself
	Hooks    Hooks             `kong:"-"`
	Progress func(text string) `kong:"-"` // is told what happens
	Log      *slog.Logger      `kong:"-"`

	diskProblem  error         // why there is no disk that can lose power
	vaultProblem error         // why there is no Vault
	hold         time.Duration // of all faults, for a control; 0: as planned
}

// Hooks are what the services do for a mesh that starts (local.Config).
type Hooks struct {
	Registry func(context.Context, *database.Pool) error
	Admit    func(context.Context, *local.Parts) error
}

// clientID and filter are the bridge's, by default. A command is older than commandAge when
// it is carried out only if the mesh breaks its promise: the bridge's limit is commandLimit,
// and the broker expires in whole seconds.
const (
	clientID     = "f2mesh-bridge"
	filter       = "#"
	commandLimit = 10 * time.Second
	commandAge   = commandLimit + 2*time.Second
)

// localConfig is how the servers of a mesh run.
func localConfig() local.Config {
	return local.Config{Host: mesh.Loopback, Public: mesh.Loopback}
}

// spares are controllers that send nothing until they are revoked.
const spares = 4

// newMesh makes a mesh on a state directory, without starting it; withoutSaves has a broker
// that saves nothing while it runs.
func (c *Config) newMesh(st mesh.State, withoutSaves bool, log *slog.Logger) (*local.Parts, error) {
	cfg := localConfig()
	cfg.Controllers, cfg.Pooling, cfg.ClientID, cfg.Filter = c.Controllers+spares, true, clientID, filter
	cfg.Registry, cfg.Admit = c.Hooks.Registry, c.Hooks.Admit
	if withoutSaves {
		cfg.Autosave = mosquitto.Autosave{Every: time.Hour}
	}
	return local.New(st, cfg, log)
}
