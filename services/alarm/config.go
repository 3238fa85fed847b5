package alarm

import (
	"errors"
	"time"
)

// Config of the service. Its zero value is not valid; the CLI gives the defaults.
type Config struct {
	Rules  string        `help:"File with the rules and receivers (YAML). It is read again when it changes. Empty: built-in rules." env:"ALARM_RULES" name:"rules"`
	Settle time.Duration `help:"How long after the end of a rule's \"for\" a late message may still prevent the alarm." env:"ALARM_SETTLE" default:"1s" name:"settle"`
	GiveUp time.Duration `help:"How long a notification is retried before it is given up." env:"ALARM_GIVE_UP" default:"24h" name:"give-up"`
	// Optional lets the file of Rules be missing: the built-in rules apply until it is there.
	Optional bool `kong:"-"`
}

// Validate returns an error for the first invalid setting.
func (c *Config) Validate() error {
	switch {
	case c.Settle < 0:
		return errors.New("settle must not be negative")
	case c.GiveUp <= 0:
		return errors.New("give-up must be positive")
	}
	return nil
}
