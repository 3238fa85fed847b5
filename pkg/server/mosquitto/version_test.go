package mosquitto

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func TestInstalled(t *testing.T) {
	t.Parallel()
	newBench(t) // skips without a broker
	v, err := Installed(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 2, v.Major)
	assert.NotEqual(t, Version{2, 0, 0}, v)
}

func TestVersionDecidesTheSpellings(t *testing.T) {
	t.Parallel()
	for v, all := range map[Version]bool{{2, 0, 11}: false, {2, 0, 22}: false, {1, 6, 15}: false, {2, 1, 0}: true, {2, 1, 2}: true, {3, 0, 0}: true} {
		assert.Equal(t, all, v.AllSpellings(), v)
	}
}

// TestSpellings publishes and takes commands in each spelling of a MAC, with the
// connector spelled either way. The lists are right for every broker; which of them
// it gets is a matter of cost.
func TestSpellings(t *testing.T) {
	t.Parallel()
	for name, spell := range map[string]spellings{"all": allSpellings, "two": twoSpellings} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			list := deviceACL([]topic.MAC{device}, spell)
			require.NoError(t, checkACL(list))
			b.writeACL(list)
			b.start()
			own, commands := listen(t, b.deviceOptions(device), "cmnd/#")
			bridge, arrived := listen(t, b.userOptions("bridge"), "tele/#", "stat/#")
			var want, wantCommands []string
			for _, spelling := range append(device.Spellings(), "E4fd45f654be", "e4-fd-45-f6-54:be") {
				for _, name := range []string{
					"tele/f2-" + spelling + "/sensor-mode/J1/sensor-1", "stat/f2-" + spelling + "/access-control-mode/1/strike-1",
				} {
					wait(t, own.Publish(name, 1, false, "x"))
					if slices.Contains(spell(device), spelling) {
						want = append(want, name+"=x")
					}
				}
				command := "cmnd/f2-" + spelling + "/access-control-mode/1/strike-1"
				wait(t, bridge.Publish(command, 1, false, "1"))
				if slices.Contains(spell(device), spelling) {
					wantCommands = append(wantCommands, command+"=1")
				}
			}
			wait(t, own.Publish("tele/f2-e4fd45f654be/end", 1, false, "x"))
			wait(t, bridge.Publish("cmnd/f2-e4fd45f654be/end", 1, false, "x"))
			assert.Equal(t, append(want, "tele/f2-e4fd45f654be/end=x"), until(t, arrived, "tele/f2-e4fd45f654be/end=x"))
			assert.Equal(t, append(wantCommands, "cmnd/f2-e4fd45f654be/end=x"), until(t, commands, "cmnd/f2-e4fd45f654be/end=x"))
		})
	}
}

// writeACL is for before the start.
func (b *bench) writeACL(list []byte) {
	b.t.Helper()
	owner, folder, err := place(b.cfg.Dir)
	require.NoError(b.t, err)
	require.NoError(b.t, owner.WriteFile(filepath.Join(folder, aclFile), acl(list), 0o600))
}
