package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// TestPath follows messages from MQTT to the tables through one mesh.
func TestPath(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	client := m.device(t, mac)
	base := "tele/f2-" + string(mac) + "/"

	t.Run("reading becomes rows once", func(t *testing.T) {
		const reading = `{"timestamp":"2026-11-24 10:00:00.123456","data":"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"}`
		for range 2 {
			publish(t, client, base+"sensor-mode/J1/sensor-1", reading)
		}
		at := time.Date(2026, 11, 24, 10, 0, 0, 123456000, time.UTC)
		eventually(t, func() bool { return m.count(t, "SELECT count(*) FROM measurement WHERE time = $1", at) == 3 }, "no rows")
		m.settled(t)
		sensor := fleet.Demo(1)[0].Connectors[0].Components[0].Sensor
		rows, err := m.rows.Query(t.Context(), "SELECT device_id, datapoint_id, value FROM measurement WHERE time = $1 ORDER BY datapoint_id", at)
		require.NoError(t, err)
		var got []string
		for rows.Next() {
			var device, point int
			var value float64
			require.NoError(t, rows.Scan(&device, &point, &value))
			assert.Equal(t, sensor.DeviceID, device, "the reading is the sensor device's")
			got = append(got, fmt.Sprint(value))
		}
		require.NoError(t, rows.Err())
		assert.Equal(t, []string{"25.52", "50", "700"}, got)
	})

	t.Run("every event component", func(t *testing.T) {
		for i, c := range []struct{ where, payload, State string }{
			{"access-control-mode/J2/strike-1", `{"timestamp":"%s","status":true}`, `{"status": true}`},
			{"access-control-mode/J2/reader-1", `{"timestamp":"%s","data":"QR 4711"}`, `{"data": "QR 4711"}`},
			{"access-control-mode/J2/door-sensors", `{"timestamp":"%s","door-sensor-1":false,"door-sensor-2":true}`, `{"door-sensor-1": false, "door-sensor-2": true}`},
			{"access-control-mode/J2/exit-buttons", `{"timestamp":"%s","exit-button-1":true}`, `{"exit-button-1": true}`},
			{"alarm-mode/J3/siren-1", `{"timestamp":"%s","status":false}`, `{"status": false}`},
			{"alarm-mode/J3/motion-sensor-2", `{"timestamp":"%s","status":true}`, `{"status": true}`},
		} {
			at := time.Date(2026, 11, 24, 11, 0, i, 0, time.UTC)
			publish(t, client, base+c.where, fmt.Sprintf(c.payload, at.Format(time.RFC3339)))
			parts := strings.Split(c.where, "/")
			var state string
			eventually(t, func() bool {
				return m.rows.QueryRow(t.Context(), "SELECT state FROM device_event WHERE time = $1 AND mode = $2 AND component = $3 AND mac = $4",
					at, parts[0], parts[2], string(mac)).Scan(&state) == nil
			}, "no event of %s", c.where)
			assert.JSONEq(t, c.State, state)
		}
	})

	t.Run("two equal events without a timestamp are two", func(t *testing.T) {
		for range 2 {
			publish(t, client, base+"alarm-mode/J3/motion-sensor-9", `{"status":true}`)
		}
		eventually(t, func() bool {
			return m.count(t, "SELECT count(*) FROM device_event WHERE component = 'motion-sensor-9'") == 2
		}, "not two events")
	})

	t.Run("direct numbers", func(t *testing.T) {
		publish(t, client, base+"sensor-mode/J1/sensor-1", `{"timestamp":"2026-11-24T12:00:00Z","TEMPERATURE":23.5,"nonsense":1}`)
		eventually(t, func() bool {
			return m.count(t, "SELECT count(*) FROM measurement WHERE time = '2026-11-24T12:00:00Z' AND value = 23.5") == 1
		}, "no row")
		eventually(t, func() bool { return len(m.deadLetters(t, "f2.dead.decoder.unknown_label.>")) == 1 }, "no dead letter for the label")
	})

	t.Run("a truncated frame keeps what can be decoded", func(t *testing.T) {
		publish(t, client, base+"sensor-mode/J1/sensor-1", `{"timestamp":"2026-11-24T13:00:00Z","data":"01 03 04 09 F8 13 88"}`)
		eventually(t, func() bool {
			return m.count(t, "SELECT count(*) FROM measurement WHERE time = '2026-11-24T13:00:00Z'") == 2
		}, "not two rows")
		letters := m.deadLetters(t, "f2.dead.decoder.out_of_range.>")
		require.Len(t, letters, 1)
		assert.Equal(t, "3", letters[0].Headers().Get(deadletter.HeaderDataPoint))
	})

	t.Run("dead letters say why", func(t *testing.T) {
		for reason, c := range map[string]struct{ name, payload string }{
			"bridge.bad_component":      {base + "sensor-mode/J1/bogus*>", `{"n":1}`},
			"bridge.payload_too_large":  {base + "sensor-mode/J1/sensor-1", `{"data":"` + strings.Repeat("00", 40000) + `"}`},
			"decoder.bad_json":          {base + "sensor-mode/J1/sensor-1", `{"data":`},
			"decoder.bad_utf8":          {base + "sensor-mode/J1/sensor-1", "{\"data\":\"\xff\"}"},
			"decoder.bad_hex":           {base + "sensor-mode/J1/sensor-1", `{"data":"zz"}`},
			"decoder.bad_timestamp":     {base + "sensor-mode/J1/sensor-1", `{"timestamp":"yesterday","data":"00"}`},
			"decoder.unknown_connector": {base + "sensor-mode/99/sensor-1", `{"data":"00"}`},
			"decoder.unknown_pin":       {base + "sensor-mode/J1/sensor-99", `{"data":"00"}`},
			"decoder.nul_character":     {base + "access-control-mode/J2/reader-1", `{"data":"a\u0000b"}`},
		} {
			publish(t, client, c.name, c.payload)
			var letters []jetstream.Msg
			eventually(t, func() bool { letters = m.deadLetters(t, "f2.dead."+reason+".>"); return len(letters) > 0 }, "no dead letter %s", reason)
			l := deadletter.Parse(&stream.Message{Subject: letters[0].Subject(), Header: letters[0].Headers(), Data: letters[0].Data()})
			assert.Equal(t, reason, l.Stage+"."+l.Reason)
			assert.NotEmpty(t, l.Topic, reason)
			assert.False(t, l.Time.IsZero() || l.Received.IsZero(), reason)
			if l.Stage == "bridge" {
				assert.Equal(t, c.payload[:len(l.Payload)], string(l.Payload), "the payload is there as it came")
				assert.Equal(t, len(c.payload), l.Length)
				continue
			}
			raw, err := m.js.Stream(t.Context(), "RAW")
			require.NoError(t, err)
			message, err := raw.GetMsg(t.Context(), l.ID.Sequence())
			require.NoError(t, err, reason)
			assert.Equal(t, c.payload, string(message.Data), "the message is in RAW, where the letter says")
		}
		figures := m.Figures()
		assert.GreaterOrEqual(t, figures["f2mesh_bridge_dead_letters_total"], 2.0)
		assert.GreaterOrEqual(t, figures["f2mesh_decoder_dead_letters_total"], 7.0)
	})

	t.Run("a command reaches its controller", func(t *testing.T) {
		got := make(chan mqtt.Message, 1)
		require.NoError(t, wait(client.Subscribe("cmnd/f2-"+string(mac)+"/#", 1, func(_ mqtt.Client, msg mqtt.Message) { got <- msg })))
		subject := "f2.command." + string(mac) + ".access-control-mode.2.strike-1"
		_, err := m.js.Publish(t.Context(), subject, []byte(`{"power-flag":1,"period":5}`))
		require.NoError(t, err)
		select {
		case msg := <-got:
			assert.Equal(t, "cmnd/f2-"+string(mac)+"/access-control-mode/J2/strike-1", msg.Topic())
			assert.JSONEq(t, `{"power-flag":1,"period":5}`, string(msg.Payload()))
		case <-time.After(20 * time.Second):
			require.Fail(t, "no command")
		}
		eventually(t, func() bool { return m.count(t, "SELECT count(*) FROM device_event WHERE root = 'cmnd'") == 1 }, "the command is not on record")
		_, err = m.js.Publish(t.Context(), subject, []byte(`{"power-flag":9}`))
		require.NoError(t, err)
		eventually(t, func() bool { return slices.Contains(m.outcomes(t), outcome.Refused) }, "a bad command is not refused")
		eventually(t, func() bool {
			return slices.ContainsFunc(m.audited(t), func(e registrar.Event) bool {
				return e.Action == registrar.CommandAction && strings.HasPrefix(e.Detail, "strike-1 of connector 2 in access-control-mode: refused")
			})
		}, "the refusal is not in the audit trail")
	})

	t.Run("latest holds the last state", func(t *testing.T) {
		kv, err := m.js.KeyValue(t.Context(), "LATEST")
		require.NoError(t, err)
		key := string(mac) + ".sensor-mode.1.sensor-1"
		publish(t, client, base+"sensor-mode/J1/sensor-1", `{"timestamp":"2026-11-24T14:00:00Z","temperature":-7.25}`)
		eventually(t, func() bool {
			entry, err := kv.Get(t.Context(), key)
			if err != nil {
				return false
			}
			d := decoded(t, key, entry.Value())
			return len(d.Values) == 1 && d.Values[0].Number == -7.25 && d.Values[0].Unit == "°C"
		}, "LATEST does not follow")
	})

	t.Run("nats micro", func(t *testing.T) {
		figures := m.byService(t)
		for _, name := range []string{"bridge", "decoder", "writer"} {
			assert.Positive(t, figures[name]["f2mesh_"+name+"_messages_received_total"], name)
			ready, cause := m.ready(t, name)
			assert.True(t, ready, cause)
		}
		reply, err := m.js.Conn().Request(probe.ReadySubject("bridge"), nil, time.Second)
		require.NoError(t, err)
		assert.True(t, json.Valid(reply.Data))
	})
}

// outcomes are those of all commands.
func (m *testMesh) outcomes(t *testing.T) (all []outcome.Outcome) {
	t.Helper()
	consumer, err := m.js.OrderedConsumer(t.Context(), stream.Result, jetstream.OrderedConsumerConfig{})
	require.NoError(t, err)
	for {
		message, err := consumer.Next(jetstream.FetchMaxWait(100 * time.Millisecond))
		if err != nil {
			return all
		}
		r, err := outcome.Parse(message.Headers(), message.Data())
		require.NoError(t, err)
		all = append(all, r.Outcome)
	}
}

func wait(token mqtt.Token) error {
	if !token.WaitTimeout(20 * time.Second) {
		return fmt.Errorf("no answer from the broker")
	}
	return token.Error()
}

// TestDoorIsLocked tries what must be refused; each refusal has its control.
func TestDoorIsLocked(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	others := fleet.Demo(2)[1].MAC
	client := m.device(t, mac)

	t.Run("another controller's topic", func(t *testing.T) {
		body := func(n int) string { return fmt.Sprintf(`{"timestamp":"2026-11-24T15:00:0%dZ","status":true}`, n) }
		// MQTT 3.1.1 acknowledges what the ACL drops, so only the tables tell.
		for _, spelling := range []string{string(others), others.Dashed()} {
			publish(t, client, "tele/f2-"+spelling+"/alarm-mode/J3/siren-1", body(1))
		}
		// The control: the same message on its own topic, and the other's own
		// certificate on that topic, arrive.
		publish(t, client, "tele/f2-"+mac.Dashed()+"/alarm-mode/J3/siren-1", body(2))
		publish(t, m.device(t, others), "tele/f2-"+string(others)+"/alarm-mode/J3/siren-1", body(3))
		eventually(t, func() bool { return m.count(t, "SELECT count(*) FROM device_event") == 2 }, "the controls did not arrive")
		m.settled(t)
		assert.Zero(t, m.count(t, "SELECT count(*) FROM device_event WHERE time = '2026-11-24T15:00:01Z'"), "a spoofed message was taken")
		assert.Empty(t, m.deadLetters(t, "f2.dead.>"))
	})

	t.Run("without a certificate", func(t *testing.T) {
		_, err := connectMQTT(m, &tls.Config{RootCAs: m.roots(t), MinVersion: tls.VersionTLS12}, "anonymous", nil)
		require.Error(t, err)
	})

	t.Run("without a password", func(t *testing.T) {
		connect := func(user, password string) error {
			client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + m.Address(m.Ports().People)).
				SetClientID("password-" + user).SetUsername(user).SetPassword(password))
			defer client.Disconnect(0)
			return wait(client.Connect())
		}
		require.Error(t, connect("", ""))
		require.Error(t, connect("operator", "guess"))
		user, password, err := mesh.LogIn(t.Context(), m.Secrets, mesh.SecretMQTTOperator)
		require.NoError(t, err)
		require.NoError(t, connect(user, password), "the control")
	})
}

// TestMetadataChange sees that a change takes effect on the next message.
func TestMetadataChange(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	client := m.device(t, mac)
	conn, err := m.Superuser(t.Context(), mesh.DatabaseMetadata)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	send := func(second int) string {
		at := fmt.Sprintf("2026-11-24T16:00:%02dZ", second)
		publish(t, client, "tele/f2-"+string(mac)+"/sensor-mode/J1/sensor-1", `{"timestamp":"`+at+`","data":"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"}`)
		eventually(t, func() bool {
			return m.count(t, "SELECT count(*) FROM measurement WHERE time = $1::timestamptz", at) == 3
		}, "no rows")
		return at
	}
	temperature := func(at string) (v float64) {
		require.NoError(t, m.rows.QueryRow(t.Context(), "SELECT value FROM measurement WHERE time = $1::timestamptz AND datapoint_id = 1", at).Scan(&v))
		return v
	}
	require.InDelta(t, 25.52, temperature(send(1)), 0)
	_, err = conn.Exec(t.Context(), `UPDATE `+mesh.MetadataSchema+`."DataPoint" SET "Decimals" = 1 WHERE "DataPointId" = 1`)
	require.NoError(t, err)
	second := 1
	eventually(t, func() bool { second++; return temperature(send(second)) == 255.2 }, "the change has no effect")
	assert.LessOrEqual(t, second, 4, "the notification, not the cache's age, made it take effect")
}
