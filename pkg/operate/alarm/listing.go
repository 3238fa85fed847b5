package alarm

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// SecretDowngraded is raised while a service uses a secret's last good value because its source
// is unavailable (design 8). It is not on a board: the service's list of secrets has it.
const SecretDowngraded = "secret_downgraded"

// ListSubject is where each instance of a service with a board replies with the alarms that are
// raised now: a JSON Listing.
func ListSubject(service string) string { return "f2.alarms." + service }

// Listing has the alarms that are raised now, newest first.
type Listing struct {
	Total  int     `json:"total"` // also those that Alarms has no room for
	Alarms []Alarm `json:"alarms"`
}

// Limits of a listing, which must fit into one message.
const (
	mostListed    = 500
	longestDetail = 300
)

// Raised lists the alarms that are raised now.
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

// Youngest orders alarms by the time when they were raised, newest first.
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
