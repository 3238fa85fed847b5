package main

import (
	"slices"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSetByUp: a flag that up sets itself is not in its help, and refused; every name
// of the list is a flag, and what is not on it is taken.
func TestSetByUp(t *testing.T) {
	t.Setenv("MQTT_URL", "tcp://192.0.2.1") // the services' own
	parser := newParser(t.Context(), new(commands))
	i := slices.IndexFunc(parser.Model.Children, func(n *kong.Node) bool { return n.Name == "up" })
	require.GreaterOrEqual(t, i, 0)
	hidden := map[string]bool{}
	for _, flag := range parser.Model.Children[i].Flags {
		hidden[flag.Name] = flag.Hidden
	}
	for _, name := range setByUp {
		assert.True(t, hidden[name], name)
		_, err := newParser(t.Context(), new(commands)).Parse([]string{"up", "--" + name + "=x"})
		require.ErrorContains(t, err, "up sets --"+name+" itself")
	}
	_, err := newParser(t.Context(), new(commands)).Parse([]string{"up", "--bridge-batch=10"})
	assert.NoError(t, err)
}
