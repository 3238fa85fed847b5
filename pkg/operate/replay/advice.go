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
		return "Nothing: this is not a failure. The letter counts a message that the bridge dropped because it already had it"
	case has("payload_too_large"):
		return "Raise the bridge's max-payload if such messages are valid, or make the device send less. The rest of the payload is lost"
	case l.Stage == stream.StageBridge:
		return "The topic is invalid: correct the topic that the device or sender uses. A letter can be replayed only if the current version accepts its topic"
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
		return "Nothing: the sensor reported that it has no value, as the metadata declare"
	case has("out_of_range", "bad_bcd", "bad_ascii", "not_a_number"):
		return "Compare the data point with the frame below. If the metadata are wrong, correct them" + again + ". If the frame is wrong, check the sensor and its cable"
	case l.Stage == stream.StageDecoder:
		return "The payload cannot be decoded: look at the detail, the sensor, its cable and the firmware. Replaying helps only after an upgrade of the decoder"
	case has("refused_by_database"):
		return "Look up the SQLSTATE, and correct the tables or the metadata that cause it" + again
	case has("conflicting_value"):
		return "Two messages have a value for the same time: the first is in the table. Check the device's clock"
	}
	return "Look at the detail"
}
