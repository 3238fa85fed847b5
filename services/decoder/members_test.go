package decoder

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/f2mesh/f2mesh/pkg/message/event"
)

// TestUnknownMemberOnceADay: a device sends members without a data point in every message. One
// letter a day names each member.
func TestUnknownMemberOnceADay(t *testing.T) {
	t.Parallel()
	c, set := newController(environment...), asConfigured()
	sequence := uint64(0)
	send := func(body string) (outcome, string) {
		sequence++
		out, d := decodeWith(t, "tele sensor-mode.1.sensor-1", body, c, set, event.PlaceID(1, sequence))
		return out, outline(&d, out.dead)
	}
	out, got := send(`{"CO2":1,"battery":"OK","rssi":-60}`)
	assert.Equal(t, "3=1 ppm !unknown_label of a message with 1", got)
	assert.Equal(t, `"rssi", "battery"`, out.dead[0].Member)
	for _, body := range []string{`{"CO2":1,"battery":"OK","rssi":-60}`, `{"CO2":1,"Battery":"low"}`, `{"CO2":1,"rssi":null}`} {
		out, got = send(body)
		assert.Equal(t, "3=1 ppm", got, body)
		assert.Positive(t, out.unknownMembers, "it is counted")
	}
	out, got = send(`{"CO2":1,"battery":"OK","fan":1}`)
	assert.Equal(t, "3=1 ppm !unknown_label of a message with 1", got)
	assert.Equal(t, `"fan"`, out.dead[0].Member, "a new one")
	out, _ = send(`{"data":"` + contract + `","rssi":-60}`)
	assert.Empty(t, out.dead, "beside a frame, too")
	_, got = send(`{"rssi":-60}`)
	assert.Equal(t, "!unknown_label of a message with 0", got, "a message of which nothing is left has its letter")
}

func TestMemberMemory(t *testing.T) {
	t.Parallel()
	memory := newMemberMemory(2)
	first, second := event.PlaceID(1, 1), event.PlaceID(1, 2)
	assert.True(t, memory.first("a", "rssi", first, received))
	assert.True(t, memory.first("a", "rssi", first, received), "delivered again: the letter may be lost")
	assert.False(t, memory.first("a", "RSSI", second, received))
	assert.True(t, memory.first("b", "rssi", second, received), "another controller")
	assert.True(t, memory.first("a", "rssi", second, received.Add(24*time.Hour)), "another day")
	for i := range mostMembers - 1 {
		assert.True(t, memory.first("a", strconv.Itoa(i), second, received.Add(24*time.Hour)))
	}
	assert.False(t, memory.first("a", "one too many", second, received.Add(24*time.Hour)), "names that change with every message are bounded")
	assert.True(t, memory.first("c", "rssi", second, received))
	assert.Equal(t, 2, memory.controllers.Len())
	assert.True(t, (*memberMemory)(nil).first("a", "rssi", second, received))
}
