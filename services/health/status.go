package health

import (
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// MeshStatus is the state of a mesh, as /status shows it. It holds no secret.
type MeshStatus struct {
	Time         time.Time       `json:"time"`
	Ready        bool            `json:"ready"` // all stages are
	Stages       []ServiceStatus `json:"stages"`
	Streams      []StreamFill    `json:"streams"`
	Ledger       Ledger          `json:"ledger"`
	Secrets      []Secret        `json:"secrets"`
	Certificates []Certificate   `json:"certificates"`
	// Alarms are those that are raised now, the youngest first; of very many of one
	// service the younger ones alone. AlarmsRaised is how many there are.
	Alarms       []alarm.Alarm `json:"alarms"`
	AlarmsRaised int           `json:"alarms_raised"`
	// Watching are the services that look for alarms and answered, of those that
	// should: health, keeper, registrar, writer and alarm.
	Watching []string `json:"watching"`
	// CRLEnds is when the revocation list ends and locks out the fleet; zero if
	// the registrar does not tell.
	CRLEnds time.Time `json:"crl_ends,omitzero"`
	// Dropped is how many messages the broker threw away since it started; zero also
	// as long as it has not told the registrar.
	Dropped float64 `json:"broker_dropped"`
	// FailedLogins is how often this API was asked with a wrong password since it started.
	FailedLogins uint64 `json:"failed_logins"`

	counted bool // it has told
}

// ServiceStatus is one service of the way of a message, or the keeper or the registrar. Its counters are
// those of all its instances since they started.
type ServiceStatus struct {
	Stage     string  `json:"stage"`
	Ready     bool    `json:"ready"`
	Cause     string  `json:"cause,omitempty"`
	Instances int     `json:"instances"`
	Received  float64 `json:"messages_received"`
	Rate      float64 `json:"messages_per_second"`
	Lag       uint64  `json:"lag"` // messages that wait for it or are in its hands
	Redeliver int     `json:"redelivered"`
	Dead      float64 `json:"dead_letters"`

	dead map[string]float64 // Dead of each instance that answered
	done uint64             // position in the stream up to which everything is acknowledged
}

// StreamFill is the fill of one stream.
type StreamFill struct {
	Stream   string `json:"stream"`
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
	MaxBytes int64  `json:"max_bytes"`
	// Leader is the NATS server that stores what the stream receives, in a cluster. Behind
	// says which others do not have everything that it has.
	Leader string   `json:"leader,omitempty"`
	Behind []string `json:"behind,omitempty"`
	// Backlog is what of Bytes its stage has yet to acknowledge, where the rest is
	// history, which the keeper trims.
	Backlog uint64 `json:"backlog_bytes"`
	// FullIn is when it is full if its backlog goes on to grow as it does; Room how long
	// what arrives finds room if nothing is acknowledged from now on. In seconds, by
	// the keeper; 0 where it does not tell, as for a backlog that does not grow.
	FullIn float64 `json:"seconds_to_full,omitempty"`
	Room   float64 `json:"seconds_of_room,omitempty"`

	// Lost is how many bytes of the stream's files the server could not read since it
	// started. It is known of those streams that keep all messages until they are trimmed.
	Lost uint64 `json:"lost_bytes,omitempty"`

	trimmed, ring bool
	created       time.Time
	last          uint64 // sequence of the last message
}

// untrimmed is the share of its limit that a stream with history does not reach while
// the keeper trims it.
const untrimmed = 0.95

// fill is the share of the limit that is used and does not become free by itself; 0
// without a limit. History does, and a stream that drops what is oldest.
func (s *StreamFill) fill() float64 {
	switch all := float64(s.Bytes) / float64(s.MaxBytes); {
	case s.MaxBytes <= 0 || s.ring:
		return 0
	case s.trimmed && all < untrimmed:
		return float64(s.Backlog) / float64(s.MaxBytes)
	default:
		return all
	}
}

// Ledger adds up the services' counters since they started. `f2mesh audit` proves
// from the streams and tables what these only count.
type Ledger struct {
	Received float64 `json:"received"` // from the broker
	Stored   float64 `json:"stored"`   // on RAW
	Decoded  float64 `json:"decoded"`  // on DECODED
	Rows     float64 `json:"rows"`     // in the tables
	Dead     float64 `json:"dead_letters"`
}

// Secret tells where one secret of a service is from.
type Secret struct {
	Service string `json:"service"`
	secret.Status
}

// Certificate is one that the mesh itself depends on.
type Certificate struct {
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after"`
}

// figures are the counters and gauges of a service, all instances added up.
type figures map[string]float64

// stages says what each stage consumes and which counter is its rate.
var stages = []struct{ name, stream, counter string }{ //nolint:gochecknoglobals // a constant
	{stream.StageBridge, "", "f2mesh_bridge_messages_received_total"},
	{stream.StageDecoder, stream.Raw, "f2mesh_decoder_messages_received_total"},
	{stream.StageWriter, stream.Decoded, "f2mesh_writer_messages_received_total"},
	{"keeper", "", "f2mesh_keeper_messages_trimmed_total"},
	{"registrar", "", "f2mesh_registrar_enrolments_total"},
	{"alarm", stream.Decoded, "f2mesh_alarm_messages_received_total"},
}

// streams are those of nats/stream_*.json, in the order of a message's way. One with a
// reader keeps history behind it; a ring drops its oldest message to take a new one.
var streams = []struct { //nolint:gochecknoglobals // a constant
	name, reader string
	ring         bool
}{
	{name: stream.Raw, reader: stream.StageDecoder},
	{name: stream.Parked},
	{name: stream.Decoded, reader: stream.StageWriter},
	{name: stream.DeadLetter, ring: true},
	{name: stream.Commands, reader: stream.StageBridge},
	{name: stream.Result, ring: true},
	{name: stream.Latest},
	{name: stream.Audit},
	{name: stream.Alarm, ring: true},
}
