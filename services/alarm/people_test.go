package alarm

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
)

func TestWhoMayAcknowledge(t *testing.T) {
	t.Parallel()
	policy, err := access.Parse([]byte(`
people:
  - {name: ann, role: operator, may: [{controllers: ["*"], modes: [access-control-mode]}]}
  - {name: bob, role: viewer, may: [{controllers: ["*"]}]}
`))
	require.NoError(t, err)
	opened := &alert.Entry{Identity: alert.Identity{Rule: "open", MAC: "e4fd45f654be", Mode: "access-control-mode", Connector: 3, Component: "door-sensors"}}
	warm := &alert.Entry{Identity: alert.Identity{Rule: "warm", MAC: "e4fd45f654be", Mode: "sensor-mode", Connector: 1, Component: "sensor-1"}}
	full := &alert.Entry{Identity: alert.Identity{Service: "keeper", Kind: "stream_filling", About: "RAW"}}
	require.NoError(t, permitted(policy, "ann", opened))
	require.Error(t, permitted(policy, "ann", warm))
	require.Error(t, permitted(policy, "ann", full))
	require.ErrorContains(t, permitted(policy, "bob", opened), "operator")
	require.NoError(t, permitted(access.Unrestricted(), "carl", full))
}

// TestRequestsOfPeople: of several people who acknowledge at once one is told that it was done.
func TestRequestsOfPeople(t *testing.T) {
	t.Parallel()
	r := newRig(t, heldOpen)
	r.start()
	r.publish(r.state(door, time.Now().UTC(), true))
	r.become(alert.Raised)
	id := r.entries()[0].ID()
	for problem, wrong := range map[string]alert.ChangeRequest{
		"there is no such alarm": {ID: "rule.none", Action: alert.Acknowledge, Person: "ann"},
		"needs its id":           {ID: "rule.>", Action: alert.Acknowledge, Person: "ann"},
		"needs the person":       {ID: id, Action: alert.Acknowledge},
		"unknown action":         {ID: id, Action: "clear", Person: "ann"},
		"in the future":          {ID: id, Action: alert.Shelve, Person: "ann"},
		"is not shelved":         {ID: id, Action: alert.Unshelve, Person: "ann"},
		"at most 1000 bytes":     {ID: id, Action: alert.Acknowledge, Person: "ann", Comment: strings.Repeat("x", 1001)},
	} {
		_, err := r.change(wrong)
		require.ErrorContains(t, err, problem)
	}
	require.Len(t, r.entries(), 1)
	errs := make(chan error, 5)
	for range cap(errs) {
		go func() {
			_, err := r.change(alert.ChangeRequest{ID: id, Action: alert.Acknowledge, Person: "ann"})
			errs <- err
		}()
	}
	done := 0
	for range cap(errs) {
		if err := <-errs; err == nil {
			done++
		} else {
			require.ErrorContains(t, err, alert.ErrAcknowledged.Error())
		}
	}
	assert.Equal(t, 1, done)
	assert.Len(t, r.entries(), 2)
}

func TestFindAlarm(t *testing.T) {
	t.Parallel()
	all := []stored{{Entry: alert.Entry{Identity: alert.Identity{Rule: "a"}}}, {Entry: alert.Entry{Identity: alert.Identity{Rule: "b"}}}}
	one, err := find(all, all[1].Handle()[:5])
	require.NoError(t, err)
	assert.Equal(t, "b", one.Rule)
	one, err = find(all, all[0].ID())
	require.NoError(t, err)
	assert.Equal(t, "a", one.Rule)
	_, err = find(all, "0")
	require.ErrorContains(t, err, "no alarm")
}
