package alert_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/message/event"
)

var start = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// see is an observation of the n-th message, in second n, of a rule with a `for` of seconds.
func see(n int, holds bool, seconds int) *alert.Observation {
	return &alert.Observation{
		Event: event.PlaceID(1, uint64(n)), At: at(n), Holds: holds, Clears: !holds, Due: at(n + seconds),
		Identity: alert.Identity{Rule: "door", MAC: "e4fd45f654be", Mode: "access-control-mode", Connector: 3, Component: "door-sensors"},
	}
}

func statuses(all []alert.Entry) (s []alert.Phase) {
	for _, e := range all {
		s = append(s, e.Status)
	}
	return s
}

// follow applies observations and returns all changes.
func follow(all ...*alert.Observation) (changes []alert.Entry) {
	var e alert.Entry
	for _, o := range all {
		next := e.Observe(o)
		changes = append(changes, next...)
		if len(next) > 0 {
			e = next[len(next)-1]
		}
	}
	return changes
}

func TestObserve(t *testing.T) {
	t.Parallel()
	const pending, raised, cleared, idle = alert.Pending, alert.Raised, alert.Cleared, alert.Idle
	undecided := &alert.Observation{Event: event.PlaceID(1, 2), At: at(2)}
	for name, c := range map[string]struct {
		seen []*alert.Observation
		want []alert.Phase
	}{
		"never holds":               {[]*alert.Observation{see(1, false, 0)}, nil},
		"holds at once":             {[]*alert.Observation{see(1, true, 0)}, []alert.Phase{raised}},
		"holds twice":               {[]*alert.Observation{see(1, true, 0), see(2, true, 0)}, []alert.Phase{raised}},
		"ends":                      {[]*alert.Observation{see(1, true, 0), see(2, false, 0)}, []alert.Phase{raised, cleared}},
		"comes again":               {[]*alert.Observation{see(1, true, 0), see(2, false, 0), see(3, true, 0)}, []alert.Phase{raised, cleared, raised}},
		"too short":                 {[]*alert.Observation{see(1, true, 60), see(30, false, 60)}, []alert.Phase{pending, idle}},
		"long enough":               {[]*alert.Observation{see(1, true, 60), see(61, true, 60)}, []alert.Phase{pending, raised}},
		"long enough and over":      {[]*alert.Observation{see(1, true, 60), see(90, false, 60)}, []alert.Phase{pending, raised, cleared}},
		"a message says nothing":    {[]*alert.Observation{see(1, true, 0), undecided}, []alert.Phase{raised}},
		"an earlier one comes late": {[]*alert.Observation{see(5, true, 0), see(4, false, 0)}, []alert.Phase{raised}},
		"the same one comes again":  {[]*alert.Observation{see(5, true, 0), see(6, false, 0), see(5, true, 0), see(6, false, 0)}, []alert.Phase{raised, cleared}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.want, statuses(follow(c.seen...)))
		})
	}
}

func TestPendingIsRaisedWhenItWasDue(t *testing.T) {
	t.Parallel()
	changes := follow(see(1, true, 60), see(90, false, 60))
	require.Len(t, changes, 3)
	assert.Equal(t, at(61), changes[1].RaisedAt)
	assert.Equal(t, at(90), changes[2].ClearedAt)
	assert.Equal(t, changes[0].Occurrence, changes[2].Occurrence)
	by, changed := changes[0].Advance(at(60))
	assert.False(t, changed)
	by, changed = by.Advance(at(500))
	assert.True(t, changed)
	assert.Equal(t, changes[1], by, "a timer and a message say the same")
}

func TestPeople(t *testing.T) {
	t.Parallel()
	_, err := alert.Entry{Status: alert.Pending}.Acknowledge("ann", "", at(1))
	require.ErrorIs(t, err, alert.ErrNotRaised)
	raised := follow(see(1, true, 0))[0]
	seen, err := raised.Acknowledge("ann", "on my way", at(2))
	require.NoError(t, err)
	_, err = seen.Acknowledge("bob", "", at(3))
	require.ErrorIs(t, err, alert.ErrAcknowledged)
	shelved, err := seen.Shelve("ann", "", at(3), at(10))
	require.NoError(t, err)
	assert.True(t, shelved.Quiet(at(9)))
	assert.False(t, shelved.Quiet(at(10)))
	_, err = seen.Shelve("ann", "", at(3), at(3))
	require.Error(t, err)
	_, err = seen.Unshelve(at(4))
	require.ErrorIs(t, err, alert.ErrNotShelved)
	over, changed := shelved.Advance(at(10))
	assert.True(t, changed)
	assert.Nil(t, over.Shelved)
	assert.NotNil(t, over.Acknowledged)
	again := append(shelved.Observe(see(4, false, 0)), shelved.Observe(see(4, false, 0))[0].Observe(see(5, true, 0))...)
	assert.Equal(t, []alert.Phase{alert.Cleared, alert.Raised}, statuses(again))
	assert.Nil(t, again[1].Acknowledged, "the next one is not seen yet")
	assert.NotNil(t, again[1].Shelved, "what was shelved stays shelved")
}

// Whatever is delivered again, from wherever, adds nothing, and the alarm alternates between
// beginning and end.
func TestReplaysChangeNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seconds := rapid.IntRange(0, 5).Draw(t, "for")
		holds := rapid.SliceOfN(rapid.Bool(), 1, 40).Draw(t, "holds")
		all := make([]*alert.Observation, len(holds))
		for i, h := range holds {
			all[i] = see(i+1, h, seconds)
		}
		want := follow(all...)
		var again []*alert.Observation
		for i := range all {
			again = append(again, all[i])
			if back := rapid.IntRange(0, i).Draw(t, "back"); rapid.Bool().Draw(t, "replayed") {
				again = append(again, all[i-back:i+1]...)
			}
		}
		assert.Equal(t, want, follow(again...))
		open := false
		for _, e := range want {
			switch e.Status {
			case alert.Raised:
				assert.False(t, open)
				open = true
			case alert.Cleared:
				assert.True(t, open)
				open = false
			}
			data, err := json.Marshal(e)
			require.NoError(t, err)
			back, err := alert.Parse(data)
			require.NoError(t, err)
			assert.Equal(t, e, back)
		}
	})
}

func TestIDs(t *testing.T) {
	t.Parallel()
	rule := see(1, true, 0).Identity
	assert.Equal(t, "rule.door.e4fd45f654be.access-control-mode.3.door-sensors", rule.ID())
	assert.Equal(t, "service.keeper.stream_filling.RAW", (&alert.Identity{Service: "keeper", Kind: "stream_filling", About: "RAW"}).ID())
	odd := alert.Identity{Service: "health", Kind: "failed_logins", About: "health API"}
	assert.Regexp(t, `^service\.health\.failed_logins\.[0-9a-f]{16}$`, odd.ID())
	_, err := alert.Parse([]byte(`{"status":"odd"}`))
	require.ErrorContains(t, err, "unknown status")
}
