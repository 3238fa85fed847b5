package registrar

import (
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Config says what a Registrar works on. All but Recorder are required.
type Config struct {
	// Devices is the folder of the devices' bundles, one folder a device.
	Devices string
	// Pool is the registry's database, as the role that owns it.
	Pool *pgxpool.Pool
	// Recorder keeps the audit trail; nil keeps none.
	Recorder Recorder
	Log      *slog.Logger
}

// Registrar carries out the operations.
type Registrar struct {
	cfg Config
}

// New makes a Registrar. It touches nothing yet.
func New(cfg Config) (*Registrar, error) {
	return &Registrar{cfg: cfg}, nil
}
