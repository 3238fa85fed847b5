package simulator

import (
	"errors"
	"io"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Config is the configuration of a simulated fleet. The tags are those of
// github.com/alecthomas/kong.
type Config struct {
	// Broker is the URL of the controllers' listener, with the scheme ssl, tls or mqtts.
	Broker string `help:"URL of the broker's listener for controllers." default:"ssl://127.0.0.1:8883" env:"F2MESH_MQTT_TLS_URL" placeholder:"URL"`
	// CAFile is the PEM file of the CA that issued the broker's certificate.
	CAFile string `help:"CA certificates to verify the broker with (PEM)." env:"F2MESH_CA" type:"path" placeholder:"FILE"`
	// Devices is a folder of bundles as pkg/identity makes them, one for each
	// controller: <Devices>/<MAC with dashes>/device.crt and device.key.
	Devices string `help:"Directory with the controllers' certificates." env:"F2MESH_DEVICES" type:"path" placeholder:"DIR"`
	// Interval is the time between two readings of a component; 0 is full speed.
	Interval time.Duration `kong:"-"`
	// Rate limits full speed, in messages a second of the whole fleet; 0 is no limit. A
	// broker acknowledges messages that it has only queued for a slower subscriber, so
	// full speed alone measures the broker.
	Rate int `help:"Maximum messages per second of the whole fleet, at full speed. 0: no limit." default:"0"`
	// Messages is how many readings and events the whole fleet sends. It stops when all
	// are acknowledged; 0 is no end.
	Messages int `help:"Stop after this many acknowledged messages of the whole fleet. 0: never." default:"0"`
	// Malformed is how many malformed messages are sent in addition to Messages.
	Malformed int `help:"Number of malformed messages to mix in." default:"0"`
	// Inflight is how many messages of a controller may wait for their PUBACK,
	// 1..10,000; 0 means 64.
	Inflight int `help:"Maximum unacknowledged messages of a controller." default:"64"`
	// OldFirmware is the share of controllers, 0..1, with older firmware.
	OldFirmware float64 `help:"Fraction of controllers with older firmware (0 to 1): readings under cmnd, connectors without J, some with dashes in the MAC." default:"0.1"`
	// Persistent is the share of controllers, 0..1, with a persistent session: the broker
	// keeps commands for them while they are disconnected.
	Persistent float64 `help:"Fraction of controllers (0 to 1) with a persistent MQTT session." default:"0.25"`
	// Connecting is how many controllers connect at the same time; 0 means 16.
	Connecting int `help:"Maximum controllers that connect at the same time." default:"16"`
	// Seed makes values and malformed messages repeatable; 0 takes the seed from the clock.
	Seed uint64 `help:"Random seed of values and malformed messages. 0: from the clock." default:"0"`
	// MaxAhead is how many acknowledged messages may wait in the broker for the bridge at
	// full speed; 0 is no limit. It needs Taken.
	MaxAhead int64 `help:"At full speed, pause while this many acknowledged messages wait in the broker for the bridge. 0 never pauses." default:"200000"`
	// Taken, if set, returns how many messages the bridge has taken from the broker since
	// the fleet started. It is called some times a second.
	Taken func() int64 `kong:"-"`
	// Digests, if set, gets a line for each acknowledged message: its event.Digest in hex.
	Digests io.Writer `kong:"-"`
	// OnCommand, if set, is called for each command that a controller carries out: by one
	// goroutine at a time for each controller.
	OnCommand func(CarriedOut) `kong:"-"`
	// OnAcknowledged, if set, is called once for each message whose PUBACK came: by one
	// goroutine at a time for each controller. body is valid during the call only. The
	// controller reads no further PUBACK until it returns.
	OnAcknowledged func(topic string, body []byte) `kong:"-"`
}

// CarriedOut is a command that a controller carried out.
type CarriedOut struct {
	MAC      topic.MAC
	Topic    string // as received
	Body     []byte // valid during the call only
	Repeated bool   // the broker marked it as sent again
	At       time.Time
}

const (
	defaultInflight   = 64
	maxInflight       = 10_000
	defaultConnecting = 16
)

// Validate returns the first error of the configuration. kong calls it too.
func (c *Config) Validate() error {
	switch {
	case c.Interval < 0:
		return errors.New("interval must not be negative")
	case c.Rate < 0:
		return errors.New("rate must not be negative")
	case c.Rate > 0 && c.Interval > 0:
		return errors.New("set either rate or interval, not both")
	case c.Messages < 0 || c.Malformed < 0 || c.MaxAhead < 0:
		return errors.New("messages, malformed and max-ahead must not be negative")
	case c.Inflight < 0 || c.Inflight > maxInflight:
		return errors.New("inflight must be 0 to 10000")
	case !(c.OldFirmware >= 0 && c.OldFirmware <= 1): // also NaN
		return errors.New("old-firmware must be 0 to 1")
	case !(c.Persistent >= 0 && c.Persistent <= 1):
		return errors.New("persistent must be 0 to 1")
	case c.Connecting < 0:
		return errors.New("connecting must not be negative")
	}
	return nil
}

func (c *Config) setDefaults() {
	if c.Inflight == 0 {
		c.Inflight = defaultInflight
	}
	if c.Connecting == 0 {
		c.Connecting = defaultConnecting
	}
	if c.Seed == 0 {
		c.Seed = uint64(time.Now().UnixNano())
	}
}
