package command

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// The values of a strike's power-flag.
const (
	powerOff = 0
	powerOn  = 1
	toggle   = 2
)

// maxStateAge is how old the last report of a strike may be for a toggle.
const maxStateAge = time.Hour

// strikeBody is a command to a strike.
type strikeBody struct {
	PowerFlag int `json:"power-flag"`
	Period    int `json:"period,omitempty"`
}

// parseStrike parses a body that check has accepted.
func parseStrike(body []byte) (b strikeBody) {
	_ = json.Unmarshal(body, &b)
	return b
}

// toggles reports whether the command would have the controller toggle a strike. What a
// toggle does depends on what the controller does before it, so that a repeat by the broker
// or a lost report turns it into its opposite. It is never published.
func (o *order) toggles() bool {
	return o.place.Component.Kind == topic.Strike && len(o.body) > 0 && parseStrike(o.body).PowerFlag == toggle
}

// resolve turns a toggle into a command that switches the strike on or off, by its last
// report. It returns why it cannot.
func (c *Commands) resolve(ctx context.Context, o *order) (why string, err error) {
	if _, away := c.fleet.awayNow(o.place.MAC); away {
		return "the controller is not connected", nil
	}
	if c.watches.waits(o.component()) {
		return "the outcome of an earlier command to it is not known yet", nil
	}
	last, err := c.lastReport(ctx, o.component())
	switch {
	case err != nil:
		return "", err
	case last == nil:
		return "it has reported none", nil
	}
	var report struct {
		Status *bool `json:"status"`
	}
	received, err := time.Parse(time.RFC3339Nano, last.Header.Get(event.HeaderReceived))
	if err != nil || json.Unmarshal(last.Data, &report) != nil || report.Status == nil {
		return "its last report has none", nil //nolint:nilerr // the refusal is its outcome
	}
	age := time.Since(received)
	if age > maxStateAge {
		return fmt.Sprintf("its last report is %s old; at most %s", age.Round(time.Second), maxStateAge), nil
	}
	if last.Header.Get(event.HeaderRepeat) != "" {
		return "its last report may be a repeat of an earlier one", nil
	}
	body, was, flag := parseStrike(o.body), "off", powerOn
	if *report.Status {
		was, flag = "on", powerOff
	}
	body.PowerFlag = flag
	if o.body, err = json.Marshal(body); err != nil {
		return "", err
	}
	o.note = fmt.Sprintf("toggled: the strike was %s %s ago", was, age.Round(time.Second))
	return "", nil
}

// lastReport returns the last message of RAW in which a controller reports a component's
// state, or nil. RAW has a report before Heard gets it.
func (c *Commands) lastReport(ctx context.Context, place topic.Topic) (last *jetstream.RawStreamMsg, err error) {
	for _, root := range []topic.Root{topic.Stat, topic.Tele} {
		place.Root = root
		m, err := c.lastRaw(ctx, place.RawSubject())
		if err != nil {
			return nil, err
		}
		if m != nil && (last == nil || m.Sequence > last.Sequence) {
			last = m
		}
	}
	return last, nil
}
