package access_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
)

const example = `
sites:
  north:
    controllers: ["E4-FD-45-F6-*"]
  south:
    names: ["South *"]
people:
  - {name: vera, role: viewer, may: [{controllers: ["*"]}]}
  - name: olga
    role: operator
    may:
      - sites: [north]
        modes: [access-control-mode]
        connectors: [J3]
        components: ["strike-*"]
      - sites: [south]
  - {name: otto, role: operator, may: [{controllers: ["*"]}]}
  - {name: adam, role: admin, may: [{controllers: ["*"]}]}
  - {name: anna, role: admin, may: [{sites: [south]}]}
  - {name: nemo, role: admin}
`

func parse(t *testing.T, text string) *access.Policy {
	t.Helper()
	p, err := access.Parse([]byte(text))
	require.NoError(t, err)
	return p
}

func target(mac topic.MAC, name string, mode topic.Mode, connector int, kind topic.ComponentKind) access.Place {
	return access.Place{MAC: mac, Name: name, Mode: mode, Connector: connector, Component: topic.Component{Kind: kind, Number: 1}}
}

const (
	north = topic.MAC("e4fd45f654be")
	south = topic.MAC("00163e000001")
)

var (
	northDoor  = target(north, "", topic.AccessControlMode, 3, topic.Strike)
	northOther = target(north, "", topic.AccessControlMode, 2, topic.Strike)
	northSiren = target(north, "", topic.AlarmMode, 3, topic.Siren)
	southDoor  = target(south, "South gate", topic.AccessControlMode, 1, topic.Strike)
	southBlind = target(south, "", topic.AccessControlMode, 1, topic.Strike) // its name is not known
)

// TestMatrix is who may do what in the example.
func TestMatrix(t *testing.T) {
	t.Parallel()
	p := parse(t, example)
	assert.True(t, p.Restricted())
	all := []access.Right{access.View, access.Command, access.Acknowledge, access.Replay, access.Administer}
	const (
		view     = "view "
		operate  = "view command acknowledge replay "
		anything = "view command acknowledge replay administer "
	)
	for _, c := range []struct {
		person string
		target access.Place
		may    string
	}{
		{"vera", northDoor, view},
		{"vera", southDoor, view},
		{"vera", access.Place{}, view},
		{"vera", access.Place{MAC: north}, view},
		{"olga", northDoor, operate},
		{"olga", northOther, ""},
		{"olga", northSiren, ""},
		{"olga", southDoor, operate},
		{"olga", southBlind, ""},
		{"olga", access.Place{}, view},
		{"olga", access.Place{MAC: north}, ""},
		{"olga", access.Place{MAC: south, Name: "South gate"}, operate},
		{"otto", northSiren, operate},
		{"otto", southBlind, operate},
		{"otto", access.Place{}, operate},
		{"adam", northSiren, anything},
		{"adam", access.Place{}, anything},
		{"anna", northDoor, ""},
		{"anna", southDoor, anything},
		{"anna", access.Place{}, view},
		{"nemo", northDoor, ""},
		{"nemo", access.Place{}, ""},
		{"eve", northDoor, ""},
		{"eve", access.Place{}, ""},
		{"", northDoor, ""},
		{"adam\nx", northDoor, ""},
	} {
		var may string
		for _, action := range all {
			allowed, reason := p.Allowed(c.person, action, c.target)
			assert.Equal(t, allowed, reason == "", "a refusal has a reason: %s, %s", c.person, action)
			if allowed {
				may += string(action) + " "
			}
		}
		assert.Equal(t, c.may, may, "%s, %s", c.person, c.target.String())
	}
	allowed, _ := p.Allowed("adam", "reboot", northDoor)
	assert.False(t, allowed)
	_, reason := p.Allowed("olga", access.Command, southBlind)
	assert.Contains(t, reason, "name is not known")
	assert.True(t, p.InSite("north", north, ""))
	assert.True(t, p.InSite("south", south, "South gate"))
	assert.False(t, p.InSite("south", south, ""))
	assert.False(t, p.InSite("west", south, "South gate"))
	assert.Equal(t, []string{"north", "south"}, p.Sites())
	assert.Len(t, p.People(), 6)
}

func TestWithoutAFile(t *testing.T) {
	t.Parallel()
	p, err := access.Load(filepath.Join(t.TempDir(), access.FileName))
	require.NoError(t, err)
	assert.False(t, p.Restricted())
	allowed, _ := p.Allowed("root", access.Administer, access.Place{})
	assert.True(t, allowed)
	allowed, _ = p.Allowed("", access.View, northDoor)
	assert.False(t, allowed, "nobody is not a person")
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	person := func(text string) string { return "people:\n  - name: a\n    role: operator\n    may:\n" + text }
	for name, c := range map[string]struct{ text, message string }{
		"nothing":            {"", "empty"},
		"another document":   {"people: []\n---\npeople: []\n", "one YAML document"},
		"unknown key":        {"people:\n  - name: a\n    rolle: admin\n", "line 3: field rolle not found"},
		"another type":       {"people: 7\n", "line 1"},
		"not YAML":           {"people: [\n", "line 1"},
		"twice":              {"people:\n  - {name: a, role: viewer}\n  - {name: a, role: admin}\n", `line 3: person "a": the name is there twice`},
		"role":               {"people:\n  - {name: a, role: god}\n", `line 2: person "a": role "god"`},
		"no role":            {"people:\n  - {name: a}\n", "line 2"},
		"no name":            {"people:\n\n  - {role: admin}\n", `line 3: person ""`},
		"name":               {"people:\n  - {name: \"a b\", role: admin}\n", "letters, digits"},
		"no controllers":     {person("      - components: [strike-1]\n"), "line 5: a selector of \"a\": it must have controllers"},
		"empty selector":     {person("      - {}\n"), "line 5"},
		"empty list":         {person("      - controllers: ['*']\n        components: []\n"), "components is an empty list"},
		"unknown site":       {person("      - sites: [x]\n"), `site "x"`},
		"MAC":                {person("      - controllers: [e4fd45]\n"), `"e4fd45"`},
		"no MAC":             {person("      - controllers: [hello*]\n"), `"hello*"`},
		"mode":               {person("      - controllers: ['*']\n        modes: [door-mode]\n"), `"door-mode"`},
		"connector":          {person("      - controllers: ['*']\n        connectors: [J100]\n"), `"J100"`},
		"component":          {person("      - controllers: ['*']\n        components: [door-*]\n"), ""},
		"no component":       {person("      - controllers: ['*']\n        components: [lock-1]\n"), `"lock-1"`},
		"site of nothing":    {"sites:\n  a: {}\n", `line 2: site "a"`},
		"pattern of nothing": {person("      - controllers: ['']\n"), `""`},
	} {
		_, err := access.Parse([]byte(c.text))
		if c.message == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, c.message, name)
		assert.NotContains(t, err.Error(), "access.", name)
	}
}

// TestRights tries random files: a viewer never commands, nobody has a right without a
// selector that matches, and a role never has less than a smaller one.
func TestRights(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.SampledFrom([]string{"*", "e4fd45*", "00163e000001", "??163e*"}).Draw(t, "controllers")
		component := rapid.SampledFrom([]string{"", "*", "strike-*", "siren-1"}).Draw(t, "component")
		selector := "controllers: ['" + pattern + "']"
		if component != "" {
			selector += ", components: ['" + component + "']"
		}
		text := "people:\n"
		for _, role := range []string{"viewer", "operator", "admin"} {
			text += "  - {name: " + role + ", role: " + role + ", may: [{" + selector + "}]}\n  - {name: no-" + role + ", role: " + role + "}\n"
		}
		p, err := access.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		x := rapid.SampledFrom([]access.Place{northDoor, northOther, northSiren, southDoor, southBlind, {}, {MAC: south}}).Draw(t, "target")
		action := rapid.SampledFrom([]access.Right{access.View, access.Command, access.Acknowledge, access.Replay, access.Administer, "other"}).Draw(t, "action")
		var may []bool
		for _, role := range []string{"viewer", "operator", "admin"} {
			if allowed, _ := p.Allowed("no-"+role, action, x); allowed {
				t.Fatalf("a %s without a selector may %s", role, action)
			}
			allowed, _ := p.Allowed(role, action, x)
			matches := matches(pattern, string(x.MAC)) && (component == "" || matches(component, x.Component.String()))
			if allowed && x.Mode != "" && !matches {
				t.Fatalf("a %s may %s although no selector matches %s", role, action, x.String())
			}
			may = append(may, allowed)
		}
		if may[0] && action != access.View {
			t.Fatalf("a viewer may %s", action)
		}
		if may[0] && !may[1] || may[1] && !may[2] {
			t.Fatalf("a greater role may less: %v", may)
		}
	})
}

// matches is the reference for patterns.
func matches(pattern, s string) bool {
	expression := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile(`^(?s:` + expression + `)$`).MatchString(s)
}

func TestMatchGlob(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.RuneFrom([]rune("ab*?é")), 0, 8, -1).Draw(t, "pattern")
		s := rapid.StringOfN(rapid.RuneFrom([]rune("abé")), 0, 8, -1).Draw(t, "s")
		if got := access.MatchGlob(pattern, s); got != matches(pattern, s) {
			t.Fatalf("%q matches %q: %t", pattern, s, got)
		}
	})
}

// TestFileChanges: what is wrong or removed does not change who may do what.
func TestFileChanges(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), access.FileName)
	var out bytes.Buffer
	f, err := access.Open(path, slog.New(slog.NewTextHandler(&out, nil)))
	require.NoError(t, err)
	assert.False(t, f.Policy().Restricted())
	may := func(person string) bool {
		allowed, _ := f.Policy().Allowed(person, access.Command, northDoor)
		return allowed
	}
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write(example)
	assert.True(t, may("olga"))
	assert.False(t, may("vera"))
	write("people: 7")
	assert.True(t, may("olga"))
	assert.False(t, may("vera"))
	assert.Equal(t, 1, strings.Count(out.String(), "cannot use"), "%s", out.String())
	require.NoError(t, os.Remove(path))
	assert.True(t, may("olga"))
	assert.False(t, may("vera"), "a file that is gone opens nothing")
	write(strings.ReplaceAll(example, "role: viewer", "role: operator"))
	assert.True(t, may("vera"), "the control")
	write("people: 7")
	f, err = access.Open(path, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, path)
	assert.False(t, may("olga"), "there is no valid one yet")
	write(example)
	assert.True(t, may("olga"))
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if p, err := access.Parse(data); err == nil {
			allowed, _ := p.Allowed("vera", access.View, northDoor)
			_ = allowed
		}
	})
}
