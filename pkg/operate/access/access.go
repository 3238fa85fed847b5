// Package access decides who may do what in a mesh: people with roles over controllers and
// components, from one file, access.yaml:
//
//	sites:
//	  north:
//	    controllers: ["e4-fd-45-f6-*"]   # MAC addresses in any notation; * and ? are wildcards
//	    names: ["North *"]               # or names of controllers in the metadata
//	people:
//	  - name: alice
//	    role: operator
//	    may:
//	      - sites: [north]
//	        modes: [access-control-mode]
//	        components: ["strike-*"]
//	  - name: bob
//	    role: admin
//	    may:
//	      - controllers: ["*"]
//
// A viewer looks; an operator also commands, acknowledges alarms and replays dead letters; an
// admin also changes the mesh. Each has its role only for what a selector under "may"
// matches. In a selector every given list must match, and a list matches if one of its entries
// does. Each selector names controllers, sites or names. Without a selector there is no right.
//
// The package authenticates nobody: its callers know who the person is. A Policy does no I/O
// and is safe for concurrent use; LivePolicy reads it from a file that may change.
package access

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Role is what a person may do.
type Role string

// The roles: each may do what the one before it may.
const (
	Viewer   Role = "viewer"
	Operator Role = "operator"
	Admin    Role = "admin"
)

var roles = []Role{Viewer, Operator, Admin}

// Right is a right to do something.
type Right string

// The rights.
const (
	View        Right = "view"        // look at states, readings, alarms, outcomes
	Command     Right = "command"     // send a command to a component
	Acknowledge Right = "acknowledge" // acknowledge, comment or shelve an alarm
	Replay      Right = "replay"      // process dead letters again
	Administer  Right = "administer"  // change the mesh: controllers, secrets, rules
)

// needs is the least role for each right. What is not in it, nobody may do.
var needs = map[Right]Role{View: Viewer, Command: Operator, Acknowledge: Operator, Replay: Operator, Administer: Admin}

// Place is what somebody wants to act on: the mesh (the zero Place), a controller (MAC), or a
// component of it (all but Name).
type Place struct {
	MAC  topic.MAC
	Name string // the controller's, in the metadata; "" if the caller does not know it

	Mode      topic.Mode
	Connector int
	Component topic.Component
}

// PlaceOf returns the place that a topic is about.
func PlaceOf(t topic.Topic, name string) Place {
	return Place{MAC: t.MAC, Name: name, Mode: t.Mode, Connector: t.Connector, Component: t.Component}
}

// String names the place for people.
func (t *Place) String() string {
	switch {
	case t.MAC == "":
		return "the mesh"
	case t.Mode == "":
		return "controller " + t.MAC.Dashed()
	}
	return fmt.Sprintf("%s of connector %d in %s of controller %s", t.Component, t.Connector, t.Mode, t.MAC.Dashed())
}

// Person is one of the people.
type Person struct {
	Name string
	Role Role

	may []selector
}

// Policy is a parsed access file.
type Policy struct {
	open   bool // there is no file
	people map[string]Person
	sites  map[string]site
}

// Unrestricted returns the policy of a mesh without an access file: everybody who can get as
// far as being asked is an admin.
func Unrestricted() *Policy { return &Policy{open: true} }

// Restricted reports whether there is an access file.
func (p *Policy) Restricted() bool { return !p.open }

// People returns the people of the file, by name.
func (p *Policy) People() []Person {
	all := make([]Person, 0, len(p.people))
	for _, one := range p.people {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Person) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Sites returns the names of the sites, sorted.
func (p *Policy) Sites() []string {
	names := make([]string, 0, len(p.sites))
	for name := range p.sites {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// InSite reports whether a controller belongs to a site.
func (p *Policy) InSite(name string, mac topic.MAC, controller string) bool {
	s, ok := p.sites[name]
	return ok && s.has(mac, controller)
}

// Allowed reports whether the person may do it, and the reason if not. A component without a
// matching selector is refused; so is the whole mesh, except to look at it, unless a selector
// matches every component of every controller.
func (p *Policy) Allowed(person string, right Right, t Place) (allowed bool, reason string) {
	least, known := needs[right]
	switch {
	case !known:
		return false, fmt.Sprintf("%q is not a right", right)
	case !ValidName(person):
		return false, "it is not known who wants to " + string(right)
	case p.open:
		return true, ""
	}
	who, ok := p.people[person]
	switch {
	case !ok:
		return false, fmt.Sprintf("%s is not in the access file", person)
	case slices.Index(roles, who.Role) < slices.Index(roles, least):
		return false, fmt.Sprintf("%s is a %s; to %s takes the role %s", person, who.Role, right, least)
	case len(who.may) == 0:
		return false, fmt.Sprintf("%s has no selector in the access file", person)
	case t.MAC == "" && right == View:
		return true, ""
	}
	for i := range who.may {
		if who.may[i].matches(p.sites, &t) {
			return true, ""
		}
	}
	reason = fmt.Sprintf("the access file does not let %s %s %s", person, right, t.String())
	if t.MAC != "" && t.Name == "" && p.byName(&who) {
		reason += "; the controller's name is not known"
	}
	return false, reason
}

// byName reports whether a right of the person depends on a controller's name.
func (p *Policy) byName(who *Person) bool {
	return slices.ContainsFunc(who.may, func(s selector) bool {
		return len(s.names) > 0 || slices.ContainsFunc(s.sites, func(name string) bool { return len(p.sites[name].names) > 0 })
	})
}

// site is a named list of controllers.
type site struct{ controllers, names []glob }

func (s *site) has(mac topic.MAC, name string) bool {
	return matchAny(s.controllers, string(mac)) || name != "" && matchAny(s.names, name)
}

// selector selects components.
type selector struct {
	controllers, names            []glob
	sites                         []string
	modes, connectors, components []glob
}

func (s *selector) matches(sites map[string]site, t *Place) bool {
	if t.MAC == "" {
		return s.matchesAll()
	}
	if len(s.controllers) > 0 && !matchAny(s.controllers, string(t.MAC)) || len(s.names) > 0 && (t.Name == "" || !matchAny(s.names, t.Name)) {
		return false
	}
	if len(s.sites) > 0 && !slices.ContainsFunc(s.sites, func(name string) bool { one := sites[name]; return one.has(t.MAC, t.Name) }) {
		return false
	}
	if t.Mode == "" { // the controller as a whole
		return everything(s.modes) && everything(s.connectors) && everything(s.components)
	}
	return (len(s.modes) == 0 || matchAny(s.modes, string(t.Mode))) &&
		(len(s.connectors) == 0 || matchAny(s.connectors, strconv.Itoa(t.Connector))) &&
		(len(s.components) == 0 || matchAny(s.components, t.Component.String()))
}

// matchesAll reports whether the selector matches every component of every controller.
func (s *selector) matchesAll() bool {
	return len(s.controllers) > 0 && everything(s.controllers) && everything(s.names) && len(s.sites) == 0 &&
		everything(s.modes) && everything(s.connectors) && everything(s.components)
}

// everything reports whether a list restricts nothing.
func everything(list []glob) bool { return len(list) == 0 || slices.Contains(list, "*") }

// glob is a pattern: * stands for any characters, ? for one.
type glob string

func matchAny(list []glob, s string) bool {
	return slices.ContainsFunc(list, func(g glob) bool { return g.match(s) })
}

// match tries the last star again with more characters until the rest matches.
func (g glob) match(text string) bool {
	pattern, s := []rune(g), []rune(text)
	i, j, star, next := 0, 0, -1, 0
	for j < len(s) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, next = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == s[j]):
			i, j = i+1, j+1
		case star >= 0:
			next++
			i, j = star+1, next
		default:
			return false
		}
	}
	for i < len(pattern) && pattern[i] == '*' {
		i++
	}
	return i == len(pattern)
}

// MatchGlob reports whether s matches a pattern as in the access file.
func MatchGlob(pattern, s string) bool { return glob(pattern).match(s) }
