package alarm

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// SecretDowngraded is raised by each service while a secret's last good value is in
// use because its source does not answer (design 8). No board has it: the service's
// list of secrets does.
const SecretDowngraded = "secret_downgraded"

// ListSubject is where each instance of a service that has a board answers what is
// raised now: a JSON Listing.
func ListSubject(service string) string { return "f2.alarms." + service }

// Listing are the alarms that are raised now, the youngest first.
type Listing struct {
	Total  int     `json:"total"` // how many there are
	Alarms []Alarm `json:"alarms"`
}

// A listing has to fit into one message, whatever a fleet does.
const (
	mostListed    = 500
	longestDetail = 300
)

// Raised lists what is raised now.
func (b *Board) Raised() Listing {
	b.mu.Lock()
	all := make([]Alarm, 0, len(b.raised))
	for _, one := range b.raised {
		all = append(all, one)
	}
	b.mu.Unlock()
	slices.SortFunc(all, Youngest)
	l := Listing{Total: len(all), Alarms: all[:min(len(all), mostListed)]}
	for i := range l.Alarms {
		l.Alarms[i].Detail = shortened(l.Alarms[i].Detail)
	}
	return l
}

// Youngest orders alarms by when they were raised, the youngest first.
func Youngest(a, b Alarm) int {
	return cmp.Or(b.Since.Compare(a.Since), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Subject, b.Subject))
}

func shortened(text string) string {
	if len(text) <= longestDetail {
		return text
	}
	end := longestDetail
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
