package main

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/services/decoder"
	monitor "github.com/f2mesh/f2mesh/services/health"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// hostileTexts are what a terminal would obey, or a reader take for another line.
func hostileTexts() []string {
	return []string{
		"\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\u009b31m", "a\nforged line", "a\rb", "a\tb", "\xff\xfe", "\x00", "\u202egnp.exe", "\u2028", "\x7f",
	}
}

func harmless(t *testing.T, text string) {
	t.Helper()
	require.True(t, utf8.ValidString(text), "%q", text)
	for _, r := range text {
		require.True(t, strconv.IsPrint(r), "%q in %q", r, text)
	}
}

// TestTablesAreHarmless prints each table with a hostile text in each field that
// others write, and looks for what a terminal obeys and for lines that it forged.
func TestTablesAreHarmless(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tables := map[string]func(out io.Writer, text string) error{
		"device log": func(out io.Writer, text string) error {
			return registrar.WriteEvents(out, []registrar.Event{{Time: now, Actor: text, Action: registrar.Action(text), Serial: text, Detail: text, Address: text}})
		},
		"device list": func(out io.Writer, text string) error {
			return registrar.WriteDevices(out, []registrar.Device{{MAC: mac, SerialNumber: text}}, now)
		},
		"device show": func(out io.Writer, text string) error {
			return registrar.WriteDevice(out, &registrar.Device{MAC: mac, SerialNumber: text, Issuer: text}, text, now)
		},
		"tail, values": func(out io.Writer, text string) error {
			d := event.Decoded{MAC: text, Component: text, Device: text}
			d.Values = []event.DataPoint{{Label: text, Text: &text}}
			decoder.WriteDecoded(out, &d)
			return nil
		},
		"tail, state": func(out io.Writer, text string) error {
			decoder.WriteDecoded(out, &event.Decoded{MAC: text, Component: "strike-1", State: jsontext.Value(text)})
			return nil
		},
		"status": func(out io.Writer, text string) error {
			_, err := (&monitor.MeshStatus{
				Stages: []monitor.ServiceStatus{{Stage: "bridge", Cause: text}},
				Alarms: []alarm.Alarm{{Kind: text, Service: text, Subject: text, Detail: text}}, AlarmsRaised: 1,
			}).WriteTo(out)
			return err
		},
		"secret status": func(out io.Writer, text string) error {
			return mesh.WriteSecrets(out, []mesh.SecretStatus{{Service: text, Status: secret.Status{Name: text, Source: text, Version: text, Problem: text}}})
		},
		"doctor": func(out io.Writer, text string) error {
			_, err := doctor.Results{{Name: "x", Finding: doctor.Finding{State: doctor.Failed, Seen: text}, Fix: text}}.WriteTo(out)
			return err
		},
	}
	for name, print := range tables {
		var good bytes.Buffer
		require.NoError(t, print(&good, "text"))
		require.Contains(t, good.String(), "text", name)
		for _, text := range hostileTexts() {
			var out bytes.Buffer
			require.NoError(t, print(&out, text))
			for line := range strings.Lines(out.String()) {
				harmless(t, strings.TrimSuffix(line, "\n"))
			}
			assert.Equal(t, strings.Count(good.String(), "\n"), strings.Count(out.String(), "\n"), "%s: lines with %q", name, text)
		}
	}
}
