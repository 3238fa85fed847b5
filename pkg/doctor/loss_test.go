package doctor

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestBrokerVersion(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]State{
		"mosquitto version 2.0.11": Warning, "mosquitto version 2.0.22": Warning,
		"mosquitto version 2.1.2": OK, "another broker": NotChecked,
	} {
		assert.Equal(t, want, judgeVersion(text).State, text)
	}
	assert.Contains(t, judgeVersion("mosquitto version 2.0.11").Seen, "connected_but_unheard")
}
