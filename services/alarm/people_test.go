package alarm

import (
	"testing"

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
