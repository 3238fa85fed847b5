package mosquitto

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	conf "github.com/f2mesh/f2mesh/mosquitto"
)

func shortly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestRenderChangesOnlyWhatItMust(t *testing.T) {
	t.Parallel()
	listeners := map[string]string{standardListener: "20001 127.0.0.1", standardTLSListener: "20002 127.0.0.1", standardSocket: "0 " + peopleSocket}
	text, err := rendering{dir: "/state/broker", listeners: listeners}.conf()
	require.NoError(t, err)
	assert.Contains(t, text, "\nlistener 20002 127.0.0.1\n")
	assert.Contains(t, text, "\npersistence_location /state/broker/data/\n")
	assert.Contains(t, text, "\nacl_file /state/broker/acl\n")
	before, after := strings.Split(conf.Conf, "\n"), strings.Split(text, "\n")
	require.Len(t, after, len(before))
	for i := range before {
		if strings.HasPrefix(before[i], "#") {
			assert.Equal(t, before[i], after[i])
		} else {
			assert.NotContains(t, after[i], "/mosquitto/")
		}
		if !strings.HasPrefix(before[i], "listener ") && !strings.Contains(before[i], "/mosquitto/") {
			assert.Equal(t, before[i], after[i])
		}
	}
}

func TestRenderAutosave(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		autosave Autosave
		want     string
	}{
		{Autosave{}, "autosave_on_changes false\nautosave_interval 10\n"},
		{Autosave{Every: 2 * time.Second}, "autosave_on_changes false\nautosave_interval 2\n"},
		{Autosave{Changes: 1}, "autosave_on_changes true\nautosave_interval 1\n"},
	} {
		text, err := rendering{autosave: test.autosave, listeners: map[string]string{
			standardListener: "1", standardTLSListener: "2", standardSocket: "0 x",
		}}.conf()
		require.NoError(t, err)
		assert.Contains(t, text, test.want)
	}
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Config){
		"no folder":        func(c *Config) { c.Dir = "" },
		"no logger":        func(c *Config) { c.Log = nil },
		"no users":         func(c *Config) { c.Users = nil },
		"people alone":     func(c *Config) { c.Users = map[string]string{"operator": "x"} },
		"empty password":   func(c *Config) { c.Users = map[string]string{"bridge": ""} },
		"part of a second": func(c *Config) { c.Autosave.Every = time.Millisecond },
		"two autosaves":    func(c *Config) { c.Autosave = Autosave{Every: time.Second, Changes: 1} },
	} {
		cfg := Config{Dir: "x", CAFile: "x", CertFile: "x", KeyFile: "x", Users: map[string]string{"bridge": "x"}, Log: slog.New(slog.DiscardHandler)}
		require.NoError(t, cfg.validate())
		spoil(&cfg)
		require.Error(t, cfg.validate(), name)
	}
}

func TestUserNameCannotEndItsLine(t *testing.T) {
	t.Parallel()
	_, err := passwordFile(map[string]string{"bridge\noperator": "x"})
	require.Error(t, err)
}

func TestParseLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]slog.Level{
		"1700000000: Error: Address already in use":                        slog.LevelError,
		"1700000000: Warning: Mosquitto should not be run as root":         slog.LevelWarn,
		"1700000000: New client connected from 127.0.0.1:1 as x (p2, c1).": slog.LevelDebug,
		"1700000000: Client x disconnected.":                               slog.LevelDebug,
		"Reloading config.":                                                slog.LevelInfo,
	} {
		parsed := parseLine(line)
		assert.Equal(t, want, parsed.Level, line)
		assert.NotContains(t, parsed.Text, "1700000000")
	}
}
