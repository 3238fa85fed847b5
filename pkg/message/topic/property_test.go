package topic_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// topics draws any canonical topic.
func topics() *rapid.Generator[topic.Topic] {
	return rapid.Custom(func(t *rapid.T) topic.Topic {
		result := topic.Topic{
			Root:      rapid.SampledFrom([]topic.Root{topic.Tele, topic.Stat, topic.Cmnd}).Draw(t, "root"),
			MAC:       topic.MAC(rapid.StringMatching(`[0-9a-f]{12}`).Draw(t, "mac")),
			Mode:      rapid.SampledFrom([]topic.Mode{topic.SensorMode, topic.AccessControlMode, topic.AlarmMode}).Draw(t, "mode"),
			Connector: rapid.IntRange(0, topic.MaxNumber).Draw(t, "connector"),
			Component: topic.Component{Kind: topic.ComponentKind(rapid.IntRange(int(topic.Sensor), int(topic.ExitButtons)).Draw(t, "kind"))},
		}
		if result.Component.Kind != topic.DoorSensors && result.Component.Kind != topic.ExitButtons {
			result.Component.Number = rapid.IntRange(0, topic.MaxNumber).Draw(t, "number")
		}
		if result.Root == topic.Cmnd && result.Component.Kind == topic.Reader && rapid.Bool().Draw(t, "verb") {
			result.Verb = topic.Success
		}
		return result
	})
}

func TestRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := topics().Draw(t, "topic")

		got, err := topic.Parse(want.MQTT())
		require.NoError(t, err)
		require.Equal(t, want, got)

		got, err = topic.ParseSubject(want.RawSubject())
		require.NoError(t, err)
		require.Equal(t, want, got)

		got, err = topic.ParseSubject(want.DecodedSubject())
		require.NoError(t, err)
		decoded := want
		decoded.Root, decoded.Verb = "", ""
		require.Equal(t, decoded, got)

		if want.Root == topic.Cmnd {
			got, err = topic.ParseSubject(want.CommandSubject())
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		requireLegal(t, want)
	})
}

// TestSpellings: all spellings of a topic have one canonical form.
func TestSpellings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := topics().Draw(t, "topic")
		mac := string(want.MAC)
		if separator := rapid.SampledFrom([]string{"", "-", ":"}).Draw(t, "separator"); separator != "" {
			mac = strings.ReplaceAll(want.MAC.Dashed(), "-", separator)
		}
		mac = randomCase(t, mac)
		connector := strconv.Itoa(want.Connector)
		if 1 <= want.Connector && want.Connector <= 4 && rapid.Bool().Draw(t, "J") {
			connector = "J" + connector
		}
		levels := []string{string(want.Root), "f2-" + mac, string(want.Mode), connector, want.Component.String()}
		if want.Verb != "" {
			levels = append(levels, want.Verb)
		}
		got, err := topic.Parse(strings.Join(levels, "/"))
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func randomCase(t *rapid.T, s string) string {
	b := []byte(s)
	for i := range b {
		if rapid.Bool().Draw(t, "upper") {
			b[i] = strings.ToUpper(s)[i]
		}
	}
	return string(b)
}

var legal = regexp.MustCompile(`^f2(\.[a-z0-9-]+){5,7}$`)

// requireLegal requires subjects without empty tokens, wildcards and characters that NATS
// refuses.
func requireLegal(t require.TestingT, parsed topic.Topic) {
	for _, subject := range []string{parsed.RawSubject(), parsed.DecodedSubject(), parsed.CommandSubject()} {
		require.Regexp(t, legal, subject)
	}
}

// TestLegalNoticesABadSubject is the control of requireLegal.
func TestLegalNoticesABadSubject(t *testing.T) {
	for _, mac := range []topic.MAC{"", "*", "a b", "a.b.", "a\x00", ">", "é"} {
		recorder := new(recorder)
		requireLegal(recorder, topic.Topic{Root: topic.Tele, MAC: mac, Mode: topic.SensorMode, Component: topic.Component{Kind: topic.Sensor}})
		require.True(t, recorder.failed, "MAC %q", mac)
	}
}

type recorder struct{ failed bool }

func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) FailNow()              { r.failed = true }
