// Package plain makes untrusted text safe to print on a terminal. Such text may contain escape
// sequences, or line breaks that forge a line of a table or of a log.
package plain

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Text returns the text itself if all of it can be printed on one line, and otherwise quotes it
// as Go does.
func Text(text string) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return text
	}
	return strconv.Quote(text)
}

// Lines applies Text to each line.
func Lines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = Text(lines[i])
	}
	return strings.Join(lines, "\n")
}

// Row is a line of a tabwriter: the cells as Text, between tabs.
func Row(cells ...any) string {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		texts[i] = Text(fmt.Sprint(cell))
	}
	return strings.Join(texts, "\t") + "\n"
}
