package web

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// mostNamed bounds the names that Counts tells apart, and namedFirst those that it shows.
const (
	mostNamed  = 1000
	namedFirst = 5
)

// Tally is how often each name came, such as a source: bounded, whatever strangers do.
type Tally map[string]int

// Add counts one.
func (c Tally) Add(name string) {
	if _, named := c[name]; named || len(c) < mostNamed {
		c[name]++
	}
}

// String lists the most frequent names.
func (c Tally) String() string {
	names := slices.SortedFunc(maps.Keys(c), func(a, b string) int { return cmp.Or(c[b]-c[a], strings.Compare(a, b)) })
	var parts []string
	for _, name := range names[:min(namedFirst, len(names))] {
		parts = append(parts, fmt.Sprintf("%s (%d)", name, c[name]))
	}
	if more := len(names) - namedFirst; more > 0 {
		parts = append(parts, fmt.Sprintf("%d others", more))
	}
	return strings.Join(parts, ", ")
}
