package plain

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func FuzzText(f *testing.F) {
	for _, text := range []string{
		"sensor J1, 25.52 °C", "\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\u009b31m", "a\nforged line", "a\rb", "a\tb", "\xff\xfe", "\x00", "\u202egnp.exe", "\u2028", "\x7f",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := Text(text)
		for _, r := range strings.ReplaceAll(Lines(text), "\n", "") + got {
			require.True(t, strconv.IsPrint(r), "%q in %q", r, got)
		}
		assert.Equal(t, strings.Count(text, "\n"), strings.Count(Lines(text), "\n"))
		if got == text {
			return
		}
		back, err := strconv.Unquote(got)
		require.NoError(t, err)
		assert.Equal(t, text, back)
	})
}

func TestTextLeavesWhatCanBePrinted(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "e4-fd-45-f6-54-be", "Türfühler \"Süd\", 25.52 °C", "電圧"} {
		assert.Equal(t, text, Text(text))
	}
	assert.Equal(t, "a\nb\n\"\\x1b\"", Lines("a\nb\n\x1b"))
}
