package topic_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func TestParseMAC(t *testing.T) {
	for _, s := range []string{
		"e4fd45f654be", "E4FD45F654BE", "e4Fd45f654bE",
		"e4-fd-45-f6-54-be", "E4-FD-45-F6-54-BE",
		"e4:fd:45:f6:54:be", "E4:fd:45:F6:54:be",
	} {
		t.Run(s, func(t *testing.T) {
			got, err := topic.ParseMAC(s)
			require.NoError(t, err)
			require.Equal(t, topic.MAC("e4fd45f654be"), got)
		})
	}
}

func TestParseMACRefuses(t *testing.T) {
	for _, s := range []string{
		"", "e4", "e4fd45f654b", "e4fd45f654be0", "g4fd45f654be", "e4fd45f654b ",
		"e4-fd-45-f6-54:be", "e4.fd.45.f6.54.be", "e4-fd-45-f6-54-b-", "-e4fd-45-f6-54-be",
		"e4fd-45f6-54be", "e4-fd-45-f6-54-be-", "e4fd45-f654be", "e4-fd-45-f6-54-gg",
		"e4-fd-45-f6-54be-", "０e4fd45f65",
	} {
		t.Run(s, func(t *testing.T) {
			_, err := topic.ParseMAC(s)
			requireReason(t, err, topic.ReasonBadMAC)
		})
	}
}

func TestDashed(t *testing.T) {
	require.Equal(t, "e4-fd-45-f6-54-be", topic.MAC("e4fd45f654be").Dashed())
	require.Empty(t, topic.MAC("").Dashed())
	require.Equal(t, "odd", topic.MAC("odd").Dashed())
}

func TestUnmixedSpellings(t *testing.T) {
	t.Parallel()
	all := topic.MAC("e4fd45f654be").Spellings()
	require.Equal(t, []string{
		"e4fd45f654be", "e4-fd-45-f6-54-be", "e4:fd:45:f6:54:be",
		"E4FD45F654BE", "E4-FD-45-F6-54-BE", "E4:FD:45:F6:54:BE",
	}, all)
	for _, spelling := range all {
		for _, connector := range []string{"J1", "1"} {
			got, err := topic.Parse("tele/f2-" + spelling + "/sensor-mode/" + connector + "/sensor-1")
			require.NoError(t, err)
			require.Equal(t, "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1", got.MQTT())
		}
	}
	require.Equal(t, []string{"001122334455", "00-11-22-33-44-55", "00:11:22:33:44:55"}, topic.MAC("001122334455").Spellings())
}
