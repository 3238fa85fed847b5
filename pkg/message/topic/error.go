package topic

// The reasons for which a topic or a subject is refused. The set is bounded:
// a reason can be a metric's label and a token of a dead letter's subject.
const (
	ReasonBadLevels    = "bad_levels"    // neither 5 nor 6 levels
	ReasonBadRoot      = "bad_root"      // not tele, stat or cmnd
	ReasonBadPrefix    = "bad_prefix"    // the second level does not start with "f2-"
	ReasonBadMAC       = "bad_mac"       // not 12 hex digits
	ReasonBadMode      = "bad_mode"      // not one of the three modes
	ReasonBadConnector = "bad_connector" // neither J1..J4 nor 0..99
	ReasonBadComponent = "bad_component" // not a known kind, or its number is not 0..99
	ReasonBadVerb      = "bad_verb"      // not "success", or not on a command to a reader
	ReasonBadSubject   = "bad_subject"   // not under f2.raw, f2.decoded or f2.command
)

// Error is why a topic or a subject was refused. It does not contain the topic, which can be
// any bytes.
type Error struct {
	Reason string // one of the Reason constants
}

// details explains each reason to readers of dead letters.
var details = map[string]string{
	ReasonBadLevels:    "not of the form <root>/f2-<mac>/<mode>/<connector>/<component>[/<verb>]",
	ReasonBadRoot:      "the first level is not tele, stat or cmnd",
	ReasonBadPrefix:    "the second level does not start with f2-",
	ReasonBadMAC:       "what follows f2- is not a MAC address of 12 hex digits",
	ReasonBadMode:      "the mode is not sensor-mode, access-control-mode or alarm-mode",
	ReasonBadConnector: "the connector is neither J1 to J4 nor 0 to 99",
	ReasonBadComponent: "the component is not a known kind with a number from 0 to 99",
	ReasonBadVerb:      "the verb is not success, or the topic is not a command to a reader",
	ReasonBadSubject:   "the subject is not under f2.raw, f2.decoded or f2.command",
}

// Error returns the reason and its explanation.
func (e *Error) Error() string { return "topic: " + e.Reason + ": " + details[e.Reason] }
