package writer

import (
	"errors"
	"time"
)

// Config of the writer. Its zero value is not valid; the CLI gives the defaults.
type Config struct {
	DSN           string        `help:"TimescaleDB or PostgreSQL database for measurements and events. The password comes from the secret." env:"TIMESCALE_DSN" default:"postgres://f2mesh_writer@127.0.0.1:5432/telemetry" name:"timescale-dsn"`
	PooledDSN     string        `help:"The same database through PgBouncer in transaction mode, for everything except migrations. Empty: not used." env:"TIMESCALE_POOLED_DSN" name:"timescale-pooled-dsn"`
	Batch         int           `help:"Maximum messages written in one transaction." env:"WRITER_BATCH" default:"5000" name:"batch"`
	Linger        time.Duration `help:"Maximum time that the first message of a batch waits for others, at a rate at which some come." env:"WRITER_LINGER" default:"10ms" name:"linger"`
	Timescale     bool          `help:"Use TimescaleDB where the extension is available." env:"WRITER_TIMESCALE" default:"true" negatable:"" name:"timescale"`
	CompressAfter time.Duration `help:"TimescaleDB: age at which chunks are compressed." env:"WRITER_COMPRESS_AFTER" default:"168h" name:"compress-after"`
	Retention     time.Duration `help:"Age at which rows are deleted. 0: never." env:"WRITER_RETENTION" default:"2160h" name:"retention"`
	DrainTimeout  time.Duration `help:"Maximum time, at a stop, to write pending messages." env:"WRITER_DRAIN_TIMEOUT" default:"10s" name:"drain-timeout"`
}

// Validate returns an error for the first invalid setting.
func (c *Config) Validate() error {
	switch {
	case c.DSN == "":
		return errors.New("timescale-dsn must not be empty")
	case c.Batch < 1 || c.Batch > 20000:
		return errors.New("batch must be 1 to 20000")
	case c.Linger < 0 || c.DrainTimeout <= 0:
		return errors.New("linger must not be negative; drain-timeout must be positive")
	case c.CompressAfter <= 0 || c.Retention < 0:
		return errors.New("compress-after must be positive; retention must not be negative")
	case c.Retention > 0 && c.Retention <= c.CompressAfter:
		return errors.New("retention must be longer than compress-after")
	}
	return nil
}
