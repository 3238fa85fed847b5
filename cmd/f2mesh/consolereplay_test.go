package main

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
)

// unwired has a sensor send that is not wired yet, and returns the number of its dead letter.
func (m *testMesh) unwired(t *testing.T, device mqtt.Client) (number uint64) {
	t.Helper()
	const subject = "f2.dead.decoder.unknown_pin.>"
	publish(t, device, fmt.Sprintf("tele/f2-%s/sensor-mode/J1/sensor-50", mac),
		fmt.Sprintf(`{"timestamp":"%s","data":"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"}`, time.Now().UTC().Format(time.DateTime)))
	eventually(t, func() bool { return len(m.deadLetters(t, subject)) == 1 }, "no letter")
	s, err := m.js.Stream(t.Context(), "DEAD_LETTER")
	require.NoError(t, err)
	letter, err := s.GetLastMsgForSubject(t.Context(), "f2.dead.decoder.unknown_pin."+string(mac))
	require.NoError(t, err)
	return letter.Sequence
}

// wire adds the sensor that was missing to the metadata.
func (m *testMesh) wire(t *testing.T) {
	t.Helper()
	conn, err := m.Superuser(t.Context(), mesh.DatabaseMetadata)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	_, err = conn.Exec(t.Context(), `INSERT INTO `+mesh.MetadataSchema+`."Pin" ("PinId", "ConnectorId", "Position", "DeviceId")
SELECT (SELECT max("PinId") + 1 FROM `+mesh.MetadataSchema+`."Pin"), "ConnectorId", 50, "DeviceId"
FROM `+mesh.MetadataSchema+`."Pin" WHERE "PinId" = (SELECT min("PinId") FROM `+mesh.MetadataSchema+`."Pin")`)
	require.NoError(t, err)
}

// TestConsoleReplays replays a dead letter in the console. The decoder does it, and does not remove a
// letter whose message it refuses still, whoever asks.
func TestConsoleReplays(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.people(t)
	device := m.device(t, mac)
	publish(t, device, fmt.Sprintf("tele/f2-%s/sensor-mode/J1/odd-1", mac), "{}")
	eventually(t, func() bool { return len(m.deadLetters(t, "f2.dead.bridge.>")) == 1 }, "no letter of the bridge")
	letter := m.unwired(t, device)
	path := fmt.Sprintf("/dead/%d", letter)
	vera, otto := m.signedIn(t, "vera"), m.signedIn(t, "otto")
	_, _, body := vera.ask(t, http.MethodGet, path, nil)
	assert.NotContains(t, body, "Replay:")
	code, _, _ := vera.ask(t, http.MethodPost, path, nil)
	assert.Equal(t, http.StatusForbidden, code, "a viewer")
	_, _, body = otto.ask(t, http.MethodGet, path, nil)
	assert.Contains(t, body, "Replay:")
	code, _, body = otto.ask(t, http.MethodPost, path, nil)
	require.Equal(t, http.StatusOK, code)
	assert.Contains(t, body, "Not replayed")
	assert.Contains(t, body, "still refused, unknown_pin: 1")

	_, _, body = otto.ask(t, http.MethodGet, "/dead/1", nil)
	assert.Contains(t, body, "somebody at a terminal can replay it")
	_, _, body = otto.ask(t, http.MethodPost, "/dead/1", nil)
	assert.Contains(t, body, "Not replayed: only the letter of a message on RAW")

	ask := func(request string) string {
		reply, err := m.js.Conn().Request(replay.Subject, []byte(request), patience)
		require.NoError(t, err)
		return reply.Header.Get("Nats-Service-Error") + string(reply.Data)
	}
	assert.Contains(t, ask(fmt.Sprintf(`{"letter":%d,"remove":true,"person":"mallory"}`, letter)), "still refused")
	assert.Contains(t, ask(fmt.Sprintf(`{"letter":%d,"person":"mallory"}`, letter)), "still refused")
	assert.Contains(t, ask(`{"letter":999,"person":"mallory"}`), "reading letter 999")
	assert.Contains(t, ask(`{"letter":1}`), "needs a letter and the person")
	m.settled(t)
	assert.Zero(t, m.count(t, "SELECT count(*) FROM measurement"))
	code, _, _ = otto.ask(t, http.MethodGet, path, nil)
	require.Equal(t, http.StatusOK, code, "the letter is still there")

	m.wire(t)
	code, _, body = otto.ask(t, http.MethodPost, path, nil)
	require.Equal(t, http.StatusOK, code, body)
	assert.Contains(t, body, ">Replayed</strong>", body)
	assert.Positive(t, m.count(t, "SELECT count(*) FROM measurement"))
	code, _, _ = otto.ask(t, http.MethodGet, path, nil)
	assert.Equal(t, http.StatusNotFound, code, "the letter is removed")
	code, _, _ = otto.ask(t, http.MethodPost, path, nil)
	assert.Equal(t, http.StatusNotFound, code)
	assert.True(t, m.balance(t).Balanced())
}
