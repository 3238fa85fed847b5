// Package plain makes text of others fit for a person's terminal. It may hold what a
// terminal obeys, or a line's end that forges a line of a table or of a log.
package plain

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Text is text as it is if all of it can be printed on one line, else quoted as Go
// does.
func Text(text string) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return text
	}
	return strconv.Quote(text)
}

// Lines is Text for each line.
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
