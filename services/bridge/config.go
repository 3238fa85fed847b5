package bridge

import (
	"errors"
	"fmt"
	"time"

	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/bridge/command"
)

// Config of the bridge. Its zero value is not valid; the CLI gives the defaults.
type Config struct {
	URL           string        `help:"MQTT broker." env:"MQTT_URL" default:"tcp://127.0.0.1:1883" name:"mqtt-url"`
	CAFile        string        `help:"CA certificates to verify the broker with, for ssl:// (PEM)." env:"F2MESH_CA" name:"mqtt-ca" type:"path"`
	ClientID      string        `help:"MQTT client id. The broker keeps the session's queue under it." env:"MQTT_CLIENT_ID" default:"f2mesh-bridge" name:"mqtt-client-id"`
	Filter        string        `help:"MQTT topic filter. Everything that matches is stored or dead-lettered." env:"MQTT_FILTER" default:"#" name:"mqtt-filter"`
	Batch         int           `help:"Maximum messages stored with one sync (1..1000)." env:"BRIDGE_BATCH" default:"1000" name:"batch"`
	Linger        time.Duration `help:"Maximum time that the first message of a batch waits for others, at a rate at which some come." env:"BRIDGE_LINGER" default:"10ms" name:"linger"`
	MaxPayload    int           `help:"Maximum payload in bytes. Larger ones become dead letters." env:"BRIDGE_MAX_PAYLOAD" default:"65536" name:"max-payload"`
	Inflight      int           `help:"Maximum unacknowledged messages: max_inflight_messages of the broker (1..16384)." env:"MQTT_INFLIGHT" default:"8000" name:"mqtt-inflight"`
	InflightBytes int64         `help:"Maximum unacknowledged payload bytes: max_inflight_bytes of the broker. Limits the memory for messages not yet stored." env:"MQTT_INFLIGHT_BYTES" default:"67108864" name:"mqtt-inflight-bytes"`
	CommandMaxAge time.Duration `help:"Commands expire after this time (5s to 2m): a door must not open late." env:"BRIDGE_COMMAND_MAX_AGE" default:"30s" name:"command-max-age"`
	AccessFile    string        `help:"Access file: which people may send which commands by request (f2.do.>). Without one all may whom the console names." env:"F2MESH_ACCESS" name:"access-file" type:"path"`
	DrainTimeout  time.Duration `help:"Maximum time, at a stop, to store messages that have arrived." env:"BRIDGE_DRAIN_TIMEOUT" default:"10s" name:"drain-timeout"`
}

// Validate returns an error for the first invalid setting.
func (c *Config) Validate() error {
	switch {
	case c.URL == "" || c.ClientID == "" || c.Filter == "":
		return errors.New("mqtt-url, mqtt-client-id and mqtt-filter must not be empty")
	case c.Batch < 1 || c.Batch > 1000:
		return errors.New("batch must be 1 to 1000, the limit of JetStream")
	case c.Linger < 0 || c.DrainTimeout <= 0:
		return errors.New("linger must not be negative; drain-timeout must be positive")
	case c.Inflight < 1 || c.Inflight > stream.RawTail:
		return errors.New("mqtt-inflight must be 1 to 16384, the number of messages that the keeper never trims from RAW")
	case c.InflightBytes < 2<<20:
		return errors.New("mqtt-inflight-bytes must be at least 2097152, twice the largest MQTT message")
	case c.CommandMaxAge < command.MinAge || c.CommandMaxAge > command.MaxAge:
		return fmt.Errorf("command-max-age must be %s to %s", command.MinAge, command.MaxAge)
	case c.MaxPayload < 1 || c.MaxPayload > 1<<20:
		return errors.New("max-payload must be 1 to 1048576")
	}
	return nil
}
