package alarm

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
)

func TestDefaultRules(t *testing.T) {
	t.Parallel()
	rules, err := ParseRules(defaultRules)
	require.NoError(t, err)
	assert.NotEmpty(t, rules.Rules)
	for _, r := range rules.Rules {
		assert.NotEmpty(t, r.Summary, r.Name)
	}
	_, err = ParseRules(nil)
	require.NoError(t, err, "nobody has to have rules")
}

func TestWrongRules(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"rules: [{name: a, when: on, colour: red}]":                                               "field colour not found",
		"rules:\n- {name: a, when: on}\n- {name: a, when: on}":                                    "line 3: rule \"a\" exists twice",
		"rules:\n- {name: A b, when: on}":                                                         "name must be",
		"rules:\n- name: a":                                                                       "line 2: rule \"a\": needs a condition",
		"rules:\n- {name: a, when: values.X + 1}":                                                 "",
		"rules:\n- {name: a, when: mode + 1}":                                                     "line 2: rule \"a\": when: \"mode + 1\": invalid operation",
		"rules:\n- {name: a, when: on, clear: of}":                                                "unknown name of",
		"rules:\n- {name: a, when: on, absent: 3}":                                                "write two rules",
		"rules:\n- {name: a, absent: 3, for: 3s}":                                                 "goes without",
		"rules:\n- {name: a, absent: 0}":                                                          "at least 1",
		"rules:\n- {name: a, when: on, for: soon}":                                                "is not a duration",
		"rules:\n- {name: a, when: on, severity: bad}":                                            "unknown severity",
		"rules:\n- {name: a, when: on, mac: here}":                                                "neither a MAC address",
		"rules:\n- {name: a, when: on, component: \"[\"}":                                         "pattern",
		"rules:\n- {name: a, when: on, schedule: {from: \"25:00\", to: \"06:00\"}}":               "is not a time of day",
		"rules:\n- {name: a, when: on, schedule: {from: \"5:00\", to: \"06:00\", zone: Nowhere}}": "unknown zone",
		"rules:\n- {name: a, when: on, schedule: {from: \"5:00\", to: \"06:00\", days: someday}}": "unknown days",
		"rules:\n-": "name must be",
		"{":         "reading alarm rules",
	} {
		_, err := ParseRules([]byte(text))
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.ErrorContains(t, err, want, text)
	}
}

func TestSelectors(t *testing.T) {
	t.Parallel()
	const sensor = "f2.decoded.e4fd45f654be.sensor-mode.1.sensor-2"
	for text, want := range map[string]bool{
		"":                        true,
		"mac: E4-FD-45-F6-54-BE":  true,
		"mac: e4fd45*":            true,
		"mac: [\"02*\", \"e4*\"]": true,
		"mac: 02f2*":              false,
		"mode: sensor-mode":       true,
		"mode: alarm-mode":        false,
		"component: sensor-*":     true,
		"component: door-sensors": false,
		"connector: [1, 2]":       true,
		"connector: [3]":          false,
	} {
		rules, err := ParseRules([]byte("rules: [{name: a, when: on, " + text + "}]"))
		require.NoError(t, err)
		e := newEvaluator(rules.Rules, nil, nil)
		assert.Equal(t, want, len(e.bind(sensor, "")) == 1, text)
	}
}

// A message that lacks a value says nothing about a condition.
func TestConditions(t *testing.T) {
	t.Parallel()
	text := "ok"
	reading := &event.Decoded{MAC: "e4fd45f654be", Mode: "sensor-mode", Values: []event.DataPoint{{Label: "Temperature", Number: 31.5}, {Label: "Status", Text: &text}}}
	state := &event.Decoded{Mode: "access-control-mode", State: []byte(`{"door-sensor-1":false,"door-sensor-2":true,"data":"personal"}`)}
	for _, c := range []struct {
		d            *event.Decoded
		text         string
		holds, known bool
	}{
		{reading, `values["Temperature"] > 30`, true, true},
		{reading, `values["Temperature"] > 32`, false, true},
		{reading, `values["Humidity"] > 32`, false, false},
		{reading, `not (values["Humidity"] > 32)`, false, false},
		{reading, `"Humidity" in values`, false, true},
		{reading, `values["Status"] == "ok" and mac startsWith "e4"`, true, true},
		{reading, `on`, false, true},
		{state, `on`, true, true},
		{state, `state["door-sensor-2"] and not state["door-sensor-1"]`, true, true},
		{state, `mode == "access-control-mode" && delay < duration("1s")`, true, true},
	} {
		program, err := compile(c.text)
		require.NoError(t, err)
		var f facts
		f.learn(reading)
		f.learn(c.d)
		holds, known := f.ask(program)
		assert.Equal(t, c.holds, holds, c.text)
		assert.Equal(t, c.known, known, c.text)
		assert.NotContains(t, detail(c.d, f.State), "personal")
	}
	assert.Equal(t, `Temperature 31.5, Status "ok"`, detail(reading, nil))
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	parse := func(text string) *Schedule {
		rules, err := ParseRules([]byte("rules: [{name: a, when: on, schedule: {" + text + "}}]"))
		require.NoError(t, err)
		return rules.Rules[0].Schedule
	}
	at := func(text string) time.Time {
		moment, err := time.Parse("2006-01-02 15:04", text)
		require.NoError(t, err)
		return moment
	}
	const work, night = `days: mon-fri, from: "08:00", to: "18:00", zone: Europe/Vienna`, `from: "22:00", to: "06:00"`
	for _, c := range []struct{ schedule, at, next string }{ // 2026-11-24 is a Tuesday, Vienna an hour ahead
		{work, "2026-11-24 07:00", "2026-11-24 07:00"},
		{work, "2026-11-24 06:59", "2026-11-24 07:00"},
		{work, "2026-11-24 17:00", "2026-11-25 07:00"},
		{work, "2026-11-27 18:00", "2026-11-30 07:00"},
		{work, "2026-03-27 18:00", "2026-03-30 06:00"}, // summer time began
		{work + ", outside: true", "2026-11-24 07:30", "2026-11-24 17:00"},
		{work + ", outside: true", "2026-11-28 12:00", "2026-11-28 12:00"},
		{night, "2026-11-24 05:59", "2026-11-24 05:59"},
		{night, "2026-11-24 06:00", "2026-11-24 22:00"},
		{`days: fri, ` + night, "2026-11-28 05:00", "2026-11-28 05:00"},
		{`days: fri, ` + night, "2026-11-28 06:00", "2026-12-04 22:00"},
		{`days: sat-mon, ` + night, "2026-11-30 23:00", "2026-11-30 23:00"},
	} {
		next, ok := parse(c.schedule).next(at(c.at))
		require.True(t, ok)
		assert.Equal(t, c.next, next.UTC().Format("2006-01-02 15:04"), "%s at %s", c.schedule, c.at)
	}
	_, ok := parse(`from: "00:00", to: "00:00", outside: true`).next(at("2026-11-24 07:00"))
	assert.False(t, ok, "never in force")
}
