package command

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// FuzzCommand checks commands and reports, of which the first come from people and the
// second from controllers.
func FuzzCommand(f *testing.F) {
	f.Add("f2.command.e4fd45f654be.access-control-mode.3.strike-1", []byte(`{"power-flag":1,"period":5}`), []byte(`{"status":true}`))
	f.Add("f2.command.e4fd45f654be.alarm-mode.1.siren-1", []byte(`{"value":1}`), []byte(`{"status":false}`))
	f.Add("f2.command.e4fd45f654be.access-control-mode.2.reader-1.success", []byte(``), []byte(`[`))
	f.Fuzz(func(t *testing.T, subject string, body, report []byte) {
		place, err := topic.ParseSubject(subject)
		if err != nil {
			return
		}
		if state := state(place.Component.Kind, report); state != nil {
			require.True(t, json.Valid(state), "%q", state)
			require.LessOrEqual(t, len(state), maxState)
		}
		if check(place, body) != nil {
			return
		}
		o := order{place: place, body: body}
		_ = o.expects().met(topic.Stat, place.Component.Kind, report)
	})
}
