package soak

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// kind is what a message is. Together with the controller, its number and its time it
// determines the message's bytes, so that the oracle can compute what must have arrived.
type kind uint8

// The kinds of messages.
const (
	timedReading   kind = iota // a reading with its own time: the natural key of its row
	untimedReading             // a reading that takes the time of its receipt
	timedEvent                 // a card at a reader, with its own time
	untimedEvent
	equalEvent // motion: all of them have the same bytes
	poison     // no JSON: becomes a dead letter
	kinds
)

func (k kind) String() string {
	return [...]string{"timed reading", "untimed reading", "timed event", "untimed event", "equal event", "poison"}[k]
}

// kindOf spreads the kinds.
func kindOf(n uint32) kind {
	if n%50 == 10 {
		return poison
	}
	switch n % 10 {
	case 0, 4, 6, 8:
		return timedReading
	case 1, 2: // one right after the other, so that in a burst they arrive in the same microsecond
		return untimedReading
	case 3, 5:
		return timedEvent
	case 7:
		return untimedEvent
	default:
		return equalEvent
	}
}

// where is the part of the topic behind the controller, and of the subject.
func (k kind) where() (mode, connector, component string) {
	switch k {
	case timedEvent, untimedEvent:
		return "access-control-mode", "3", "reader-1"
	case equalEvent:
		return "alarm-mode", "4", "motion-sensor-1"
	default:
		return "sensor-mode", "1", "sensor-1"
	}
}

func topicOf(mac string, k kind) string {
	mode, connector, component := k.where()
	return "tele/f2-" + mac + "/" + mode + "/J" + connector + "/" + component
}

func subjectOf(mac string, k kind) string {
	mode, connector, component := k.where()
	return "f2.raw.tele." + mac + "." + mode + "." + connector + "." + component
}

// payloadOf is the body of message n. Its time has microseconds, as PostgreSQL has.
func payloadOf(k kind, n uint32, at time.Time) []byte {
	switch k {
	case timedReading:
		return fmt.Appendf(nil, `{"timestamp":%q,"temperature":%d}`, at.UTC().Format(timeFormat), n)
	case untimedReading:
		return fmt.Appendf(nil, `{"humidity":%d}`, n)
	case timedEvent:
		return fmt.Appendf(nil, `{"timestamp":%q,"data":"card-%d"}`, at.UTC().Format(timeFormat), n)
	case untimedEvent:
		return fmt.Appendf(nil, `{"data":"card-%d"}`, n)
	case equalEvent:
		return []byte(`{"status":true}`)
	default:
		return fmt.Appendf(nil, `{"poison":%d`, n)
	}
}

const timeFormat = "2006-01-02T15:04:05.000000Z07:00"

// numberOf reads the number out of a body that RAW has. An equal event has none.
func numberOf(body []byte) (n uint32, ok bool) {
	if rest, found := bytes.CutPrefix(body, []byte(`{"poison":`)); found {
		number, err := strconv.ParseUint(string(rest), 10, 32)
		return uint32(number), err == nil
	}
	var read struct {
		Temperature, Humidity *uint32
		Data                  *string
	}
	if json.Unmarshal(body, &read) != nil {
		return 0, false
	}
	switch {
	case read.Temperature != nil:
		return *read.Temperature, true
	case read.Humidity != nil:
		return *read.Humidity, true
	case read.Data != nil:
		return cardOf(*read.Data)
	}
	return 0, false
}

func cardOf(data string) (n uint32, ok bool) {
	number, err := strconv.ParseUint(strings.TrimPrefix(data, "card-"), 10, 32)
	return uint32(number), err == nil
}
