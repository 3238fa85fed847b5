package replay

import (
	"slices"

	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// advice says what to do about a letter.
func advice(l *deadletter.Stored) string {
	has := func(reasons ...string) bool { return slices.Contains(reasons, l.Reason) }
	const again = ". Then replay the letter"
	switch {
	case l.Counted():
		return "Nothing: it is no failure. The ledger counts what the bridge dropped because it has it already"
	case has("payload_too_large"):
		return "Raise the bridge's max-payload if such messages are right, or have the device send less. What the letter does not hold is lost"
	case l.Stage == stream.StageBridge:
		return "The topic is outside the grammar: correct the device's or sender's topic. A letter can be replayed only where the topic is read now"
	case has("unknown_controller"):
		return "Register the controller in the metadata (\"Device\" with its \"MacAddress\")" + again
	case has("unknown_connector", "unknown_pin", "no_data_points"):
		return "Add what the detail names to the metadata" + again
	case has("unknown_label"):
		return "Add a data point with that label to the sensor's template, if its values are wanted" + again
	case has("unknown_encoding", "bad_length", "bad_offset", "bad_decimals", "bad_metadata",
		"ambiguous_controller", "ambiguous_pin", "ambiguous_data_point", "ambiguous_label", "decoded_too_large"):
		return "Correct the row of the metadata that the detail names" + again
	case has("not_available"):
		return "Nothing: the sensor said that it has no value, as the metadata declare"
	case has("out_of_range", "bad_bcd", "bad_ascii", "not_a_number"):
		return "Compare the data point with the frame below. If the metadata are wrong, correct them" + again + ". If the frame is, look at the sensor and its cable"
	case l.Stage == stream.StageDecoder:
		return "The device sent what cannot be read: look at the detail, and at the sensor, its cable or the firmware. Replaying helps only after an upgrade of the decoder"
	case has("refused_by_database"):
		return "Look up the SQLSTATE, and correct the tables or the metadata that make such a row" + again
	case has("conflicting_value"):
		return "Two messages have a value for the same moment: the first is in the table. Look at the device's clock"
	}
	return "Look at the detail"
}
