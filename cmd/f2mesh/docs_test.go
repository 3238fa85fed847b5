package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mention is a command that a page tells people to type, or only names.
type mention struct {
	text string
	args []string
	full bool // in a block of its own: with all that it needs
}

var (
	invocation   = regexp.MustCompile(`(?:^|[\s("/])f2mesh ([a-z][^#|;&)<>` + "`" + `]*)`)
	substitution = regexp.MustCompile(`\$\([^()]*\)`)
	inline       = regexp.MustCompile("`([^`\n]+)`")
	taskName     = regexp.MustCompile(`(?:^|[\s(])\./task ([a-z][a-z0-9:-]*)`)
	taskEntry    = regexp.MustCompile(`(?m)^  ([a-z][a-z0-9:-]*):$`)
)

// mentions reads the code blocks and the code within the text of a page.
func mentions(page string) (all []mention, tasks []string) {
	read := func(code string, full bool) {
		code = substitution.ReplaceAllStringFunc(code, func(text string) string {
			if strings.Contains(text, "f2mesh ") {
				return text
			}
			return "substituted"
		})
		for _, m := range invocation.FindAllStringSubmatch(code, -1) {
			all = append(all, mention{code, words(m[1]), full})
		}
		for _, m := range taskName.FindAllStringSubmatch(code, -1) {
			tasks = append(tasks, m[1])
		}
	}
	inBlock := false
	for line := range strings.Lines(strings.ReplaceAll(page, "\\\n", " ")) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "```"):
			inBlock = !inBlock
		case inBlock:
			read(line, true)
		default:
			for _, m := range inline.FindAllStringSubmatch(line, -1) {
				read(m[1], false)
			}
		}
	}
	return all, tasks
}

// words are the arguments without their quotes.
func words(text string) []string {
	all := strings.Fields(text)
	for i := range all {
		all[i] = strings.Trim(all[i], `"'.,:`)
	}
	return all
}

// parse has the real parser look. It does not look for files that are named; of what is
// only named in passing it looks whether it exists.
func (m mention) parse(t *testing.T) error {
	t.Helper()
	unseen := kong.MapperFunc(func(c *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := c.Scan.PopValueInto("file", &text); err != nil {
			return err
		}
		target.SetString(text)
		return nil
	})
	parser := newParser(t.Context(), new(commands), kong.NamedMapper("existingfile", unseen), kong.NamedMapper("existingdir", unseen))
	if m.full {
		_, err := parser.Parse(m.args)
		return err
	}
	trace, err := kong.Trace(parser, m.args)
	if err != nil {
		return err
	}
	return trace.Error
}

// TestDocs holds the pages to what the program and the Taskfile have.
func TestDocs(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	taskfile, err := os.ReadFile(filepath.Join(root, "Taskfile.yml"))
	require.NoError(t, err)
	var known []string
	for _, m := range taskEntry.FindAllStringSubmatch(string(taskfile), -1) {
		known = append(known, m[1])
	}
	pages := []string{filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")}
	require.NoError(t, filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			pages = append(pages, path)
		}
		return err
	}))
	var found int
	for _, page := range pages {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		all, tasks := mentions(string(text))
		for _, m := range all {
			found++
			if err := m.parse(t); err != nil {
				t.Errorf("%s: %s: %v", page, m.text, err)
			}
		}
		for _, task := range tasks {
			assert.Contains(t, known, task, page)
		}
	}
	assert.Greater(t, found, 50, "the pages are read")
}

// What is wrong in a page is found.
func TestDocsControl(t *testing.T) {
	t.Parallel()
	for text, right := range map[string]bool{
		"see `f2mesh backup`":                                      true,
		"see `f2mesh bakcup`":                                      false,
		"see `f2mesh up --no-such-flag`":                           false,
		"```sh\nbin/f2mesh backup\n```":                            false,
		"```sh\nbin/f2mesh backup --to F --passphrase-file P\n```": true,
		"```sh\nx=$(bin/f2mesh device list --jsn)\n```":            false,
		"```sh\nbin/f2mesh device list \\\n  --json  # all\n```":   true,
	} {
		all, _ := mentions(text)
		require.Len(t, all, 1, text)
		assert.Equal(t, right, all[0].parse(t) == nil, text)
	}
	all, tasks := mentions("```sh\n./task up -- --detach && bin/f2mesh status | head\n```")
	assert.Equal(t, []string{"up"}, tasks)
	assert.True(t, slices.Equal([]string{"status"}, all[0].args))
}
