package stream

// Names of the streams. Each is defined in nats/stream_<name>.json.
const (
	Raw        = "RAW"         // messages as the controllers sent them
	Decoded    = "DECODED"     // readings and events, for the writer
	DeadLetter = "DEAD_LETTER" // messages that a stage refused
	Parked     = "PARKED"      // messages that wait for their controller's metadata
	Latest     = "KV_LATEST"   // the stream of the key-value bucket LATEST
	Commands   = "COMMANDS"    // commands for controllers
	Result     = "RESULT"      // outcomes of commands
	Audit      = "AUDIT"       // the registrar's audit trail
	Alarm      = "ALARM"       // alarms: the last message of a subject is its state
)

// Names of the stages of the data path. The bridge reads COMMANDS, the decoder RAW and
// the writer DECODED by the durable consumer of the stage's name; dead letters name the
// stage that refused a message.
const (
	StageBridge  = "bridge"
	StageDecoder = "decoder"
	StageWriter  = "writer"
)

// RawTail is how many of the last messages of RAW always stay: the keeper does not trim them, and
// the bridge knows by them what the broker sends again. The broker has at most that many messages in flight;
// after a crash it also sends again what it has queued since its last save.
const RawTail = 16_384
