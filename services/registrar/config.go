package registrar

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
)

// listLife is how long a revocation list holds. A third of it is time to find out
// why it is not renewed, and renew it (design 9).
const listLife = 7 * 24 * time.Hour

// Config says what a Registrar works on. All but ServerCAs are required.
type Config struct {
	// Devices is the folder of the devices' bundles, one folder a device.
	Devices string
	// Pool is the registry's database, as the role that owns it.
	Pool *pgxpool.Pool
	// Issuer signs.
	Issuer identity.Issuer
	// ServerCAs is a file of CAs that devices are to trust, PEM, beyond those that
	// their own certificates come from.
	ServerCAs string
	// Gate is the broker's.
	Gate *mosquitto.Gate
	// Credential answers the broker's user that ends sessions.
	Credential func(context.Context) (user, password string, err error)
	Log        *slog.Logger
}

func (c *Config) validate() error {
	switch {
	case c.Devices == "":
		return errors.New("a folder of bundles is required")
	case c.Pool == nil || c.Issuer == nil || c.Gate == nil || c.Credential == nil || c.Log == nil:
		return errors.New("pool, issuer, gate, credential and logger are required")
	}
	return nil
}

// Registrar carries out the operations.
type Registrar struct {
	cfg   Config
	queue queue
	// reached is told of the places where a crash is worth trying.
	reached func(place string)
}

// New makes a Registrar. It touches nothing yet; Migrate prepares the registry.
func New(cfg Config) (*Registrar, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.Devices = filepath.Clean(cfg.Devices)
	cfg.Gate.Login = cfg.Credential
	return &Registrar{cfg: cfg, reached: func(string) {}}, nil
}
