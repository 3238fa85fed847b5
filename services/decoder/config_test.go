package decoder

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Config){
		"no DSN":               func(c *Config) { c.DSN = "" },
		"no schema":            func(c *Config) { c.Schema = "" },
		"no TTL":               func(c *Config) { c.CacheTTL = 0 },
		"no unknown TTL":       func(c *Config) { c.CacheUnknownTTL = 0 },
		"no cache":             func(c *Config) { c.CacheControllers = 0 },
		"payload over NATS's":  func(c *Config) { c.MaxPayload = 1<<20 + 1 },
		"negative payload":     func(c *Config) { c.MaxPayload = -1 },
		"no batch":             func(c *Config) { c.Batch = 0 },
		"batch over the limit": func(c *Config) { c.Batch = 1001 },
		"negative workers":     func(c *Config) { c.Workers = -1 },
		"negative linger":      func(c *Config) { c.Linger = -1 },
		"no time to drain":     func(c *Config) { c.DrainTimeout = 0 },
		"negative clock bound": func(c *Config) { c.MaxClockAhead = -1 },
		"negative lateness":    func(c *Config) { c.MaxLate = -1 },
		"unknown zone":         func(c *Config) { c.Zone = "Mars/Olympus" },
	} {
		c := testConfig()
		require.NoError(t, c.Validate(), "the control")
		spoil(&c)
		require.Error(t, c.Validate(), name)
	}
}

func testConfig() Config {
	return Config{
		DSN: "postgres://", Schema: "public", Zone: "UTC", CacheTTL: 600, CacheUnknownTTL: 30, CacheControllers: 100,
		Batch: 1000, DrainTimeout: time.Second,
	}
}
