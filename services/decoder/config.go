package decoder

import (
	"errors"
	"fmt"
	"time"
)

// Config of the decoder. Its zero value is not valid; the CLI gives the defaults.
type Config struct {
	DSN              string        `help:"PostgreSQL database of the fleet's metadata. The password comes from the secret." env:"METADATA_DSN" default:"postgres://f2mesh_decoder@127.0.0.1:5432/metadata" name:"metadata-dsn"`
	PooledDSN        string        `help:"The same database through PgBouncer in transaction mode, for everything except LISTEN. Empty: not used." env:"METADATA_POOLED_DSN" name:"metadata-pooled-dsn"`
	Schema           string        `help:"Schema of the metadata tables." env:"METADATA_SCHEMA" default:"public" name:"metadata-schema"`
	Zone             string        `help:"Time zone of device timestamps without an offset (IANA name)." env:"FLEET_ZONE" default:"UTC" name:"zone"`
	CacheTTL         int           `help:"Seconds that metadata is cached." env:"CACHE_TTL" default:"600" name:"cache-ttl"`
	CacheUnknownTTL  int           `help:"Seconds that an unknown controller is cached as unknown." env:"CACHE_UNKNOWN_TTL" default:"30" name:"cache-unknown-ttl"`
	CacheControllers int           `help:"Maximum controllers in the metadata cache." env:"CACHE_CONTROLLERS" default:"50000" name:"cache-controllers"`
	MaxPayload       int           `help:"Maximum payload in bytes. Larger ones become dead letters. The bridge has its own limit." env:"DECODER_MAX_PAYLOAD" default:"65536" name:"max-payload"`
	Batch            int           `help:"Maximum messages decoded and stored together (1..1000)." env:"DECODER_BATCH" default:"1000" name:"batch"`
	Linger           time.Duration `help:"Maximum time that the first message of a batch waits for others, at a rate at which some come." env:"DECODER_LINGER" default:"10ms" name:"linger"`
	Workers          int           `help:"Number of decoding workers. Messages of one controller stay in order. 0: one per CPU." env:"DECODER_WORKERS" default:"0" name:"workers"`
	RefuseWrongCRC   bool          `help:"Refuse Modbus responses with a wrong CRC. They are counted in any case; controllers check the CRC themselves." env:"DECODER_REFUSE_WRONG_CRC" name:"refuse-wrong-crc"`
	MaxClockAhead    time.Duration `help:"Maximum lead of a device's timestamp over the receive time. Beyond it the receive time is used, and the timestamp is kept separately. 0: 24h." env:"DECODER_MAX_CLOCK_AHEAD" default:"24h" name:"max-clock-ahead"`
	MaxLate          time.Duration `help:"Maximum lag of a device's timestamp behind the receive time, likewise. 0: 2160h." env:"DECODER_MAX_LATE" default:"2160h" name:"max-late"`
	DrainTimeout     time.Duration `help:"Maximum time, at a stop, to store messages being decoded." env:"DECODER_DRAIN_TIMEOUT" default:"10s" name:"drain-timeout"`
}

// Validate returns an error for the first invalid setting.
func (c *Config) Validate() error {
	switch {
	case c.DSN == "" || c.Schema == "":
		return errors.New("metadata-dsn and metadata-schema must not be empty")
	case c.CacheTTL < 1 || c.CacheUnknownTTL < 1 || c.CacheControllers < 1:
		return errors.New("cache-ttl, cache-unknown-ttl and cache-controllers must be positive")
	case c.MaxPayload < 0 || c.MaxPayload > 1<<20:
		return errors.New("max-payload must be 0 to 1048576; 0 means 65536")
	case c.Batch < 1 || c.Batch > 1000:
		return errors.New("batch must be 1 to 1000, the limit of JetStream")
	case c.Workers < 0 || c.Linger < 0 || c.DrainTimeout <= 0:
		return errors.New("workers and linger must not be negative; drain-timeout must be positive")
	case c.MaxClockAhead < 0 || c.MaxLate < 0:
		return errors.New("max-clock-ahead and max-late must not be negative")
	}
	if _, err := time.LoadLocation(c.Zone); err != nil {
		return fmt.Errorf("zone: %w", err)
	}
	return nil
}
