package health

import (
	"errors"
	"time"
)

// Config of the service. Its zero value is not valid; the CLI gives the defaults.
type Config struct {
	Listen   string        `help:"Address of the health API, over TLS." env:"HEALTH_LISTEN" default:":8000" name:"listen"`
	CertFile string        `help:"Certificate of the API (PEM, with its chain)." env:"HEALTH_CERT" type:"path" name:"cert"`
	KeyFile  string        `help:"Key of that certificate (PEM)." env:"HEALTH_KEY" type:"path" name:"key"`
	CAs      string        `help:"CA certificates whose expiry is watched too (PEM)." env:"HEALTH_CAS" type:"path" name:"cas"`
	Interval time.Duration `help:"How often the mesh is checked." env:"HEALTH_INTERVAL" default:"10s" name:"interval"`

	StalledAfter time.Duration `help:"Raise a stage_stalled alarm if a stage is not ready, or makes no progress on pending work, for this long." env:"HEALTH_STALLED_AFTER" default:"1m" name:"stalled-after"`
	StreamFull   float64       `help:"Raise an alarm if a stream, without history, exceeds this fraction of its size limit. A full stream accepts nothing." env:"HEALTH_STREAM_FULL" default:"0.8" name:"stream-full"`
	DeadLetters  float64       `help:"Number of dead letters of a stage, within the window, that raises an alarm." env:"HEALTH_DEAD_LETTERS" default:"10" name:"dead-letters"`
	Window       time.Duration `help:"Window for dead letters and for messages dropped by the broker." env:"HEALTH_WINDOW" default:"5m" name:"window"`
}

// Validate names the first setting that cannot work. The files are New's to look for.
func (c *Config) Validate() error {
	switch {
	case c.Listen == "":
		return errors.New("listen must not be empty")
	case c.Interval <= 0 || c.StalledAfter <= 0 || c.Window <= 0:
		return errors.New("interval, stalled-after and window must be positive")
	case c.StreamFull <= 0 || c.StreamFull > 1:
		return errors.New("stream-full must be above 0 and at most 1")
	case c.DeadLetters < 1:
		return errors.New("dead-letters must be at least 1")
	}
	return nil
}
