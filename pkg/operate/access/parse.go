package access

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The limits of a file: matching takes time.
const (
	maxFile    = 1 << 20 // bytes
	maxPattern = 100     // bytes
)

// file is the file as YAML has it.
type file struct {
	Sites  map[string]siteEntry `yaml:"sites"`
	People []personEntry        `yaml:"people"`
}

type siteEntry struct {
	Controllers []string `yaml:"controllers"`
	Names       []string `yaml:"names"`
}

type personEntry struct {
	Name string          `yaml:"name"`
	Role Role            `yaml:"role"`
	May  []selectorEntry `yaml:"may"`
}

type selectorEntry struct {
	Controllers []string `yaml:"controllers"`
	Sites       []string `yaml:"sites"`
	Names       []string `yaml:"names"`
	Modes       []string `yaml:"modes"`
	Connectors  []string `yaml:"connectors"`
	Components  []string `yaml:"components"`
}

// goType is how the YAML library names a Go type in an error.
var goType = regexp.MustCompile(` (in type|into) \S*access\.\w+`)

// Parse parses an access file. Errors name the line.
func Parse(data []byte) (*Policy, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("the access file is larger than %d bytes", maxFile)
	}
	var f file
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&f); errors.Is(err, io.EOF) {
		return nil, errors.New("the access file is empty: it must name people, or not exist")
	} else if err != nil {
		text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n  ")
		return nil, fmt.Errorf("the access file is not valid: %s", goType.ReplaceAllString(text, ""))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the access file is not valid: it must be one YAML document")
	}
	var tree yaml.Node
	if err := yaml.Unmarshal(data, &tree); err != nil {
		return nil, fmt.Errorf("the access file is not valid: %w", err)
	}
	return f.policy(lines{root: tree.Content[0]})
}

// lines finds where something is in the file.
type lines struct{ root *yaml.Node }

func (l lines) person(i int) int     { return line(child(l.root, "people"), i) }
func (l lines) site(name string) int { return child(child(l.root, "sites"), name).Line }

func (l lines) selector(person, i int) int {
	return line(child(at(child(l.root, "people"), person), "may"), i)
}

func line(list *yaml.Node, i int) int { return at(list, i).Line }

func at(list *yaml.Node, i int) *yaml.Node {
	if list = resolve(list); i < len(list.Content) {
		return list.Content[i]
	}
	return list
}

// child returns the value of a key, or the mapping itself if it has none.
func child(mapping *yaml.Node, key string) *yaml.Node {
	mapping = resolve(mapping)
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return mapping
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func (f *file) policy(where lines) (*Policy, error) {
	p := &Policy{people: map[string]Person{}, sites: map[string]site{}}
	for name, e := range f.Sites {
		s, err := e.site()
		if err != nil {
			return nil, fmt.Errorf("the access file is not valid: line %d: site %q: %w", where.site(name), name, err)
		}
		p.sites[name] = s
	}
	for i := range f.People {
		e := &f.People[i]
		fail := func(err error) (*Policy, error) {
			return nil, fmt.Errorf("the access file is not valid: line %d: person %q: %w", where.person(i), e.Name, err)
		}
		if !ValidName(e.Name) {
			return fail(errors.New("a name has 1 to 64 letters, digits, '.', '_', '-' and '@'"))
		}
		if _, twice := p.people[e.Name]; twice {
			return fail(errors.New("the name is there twice"))
		}
		if !slices.Contains(roles, e.Role) {
			return fail(fmt.Errorf("role %q: it must be viewer, operator or admin", e.Role))
		}
		who := Person{Name: e.Name, Role: e.Role}
		for n := range e.May {
			s, err := e.May[n].selector(p.sites)
			if err != nil {
				return nil, fmt.Errorf("the access file is not valid: line %d: a selector of %q: %w", where.selector(i, n), e.Name, err)
			}
			who.may = append(who.may, s)
		}
		p.people[e.Name] = who
	}
	return p, nil
}

func (e *siteEntry) site() (s site, err error) {
	if len(e.Controllers)+len(e.Names) == 0 {
		return s, errors.New("a site needs controllers or names")
	}
	if s.controllers, err = globs("controllers", e.Controllers, macPattern); err != nil {
		return s, err
	}
	s.names, err = globs("names", e.Names, anyPattern)
	return s, err
}

func (e *selectorEntry) selector(sites map[string]site) (s selector, err error) {
	if len(e.Controllers)+len(e.Sites)+len(e.Names) == 0 {
		return s, errors.New(`it must have controllers, sites or names; for all controllers write controllers: ["*"]`)
	}
	for _, name := range e.Sites {
		if _, ok := sites[name]; !ok {
			return s, fmt.Errorf("site %q is not under sites", name)
		}
	}
	s.sites = e.Sites
	for _, list := range []struct {
		name  string
		from  []string
		to    *[]glob
		check func(string) (string, bool)
	}{
		{"controllers", e.Controllers, &s.controllers, macPattern},
		{"names", e.Names, &s.names, anyPattern},
		{"modes", e.Modes, &s.modes, modePattern},
		{"connectors", e.Connectors, &s.connectors, connectorPattern},
		{"components", e.Components, &s.components, componentPattern},
	} {
		if *list.to, err = globs(list.name, list.from, list.check); err != nil {
			return s, err
		}
	}
	return s, nil
}

// globs returns patterns in canonical spelling. A list that is there but has no entry would
// look like one that matches nothing, and restrict nothing.
func globs(name string, from []string, canonical func(string) (string, bool)) ([]glob, error) {
	if from != nil && len(from) == 0 {
		return nil, fmt.Errorf("%s is an empty list: remove it, or name some", name)
	}
	var list []glob
	for _, text := range from {
		pattern, ok := canonical(text)
		if !ok || pattern == "" || len(pattern) > maxPattern {
			return nil, fmt.Errorf("%q cannot match any of %s", text, name)
		}
		list = append(list, glob(pattern))
	}
	return list, nil
}

// literal reports whether a pattern has no wildcard.
func literal(s string) bool { return !strings.ContainsAny(s, "*?") }

func anyPattern(s string) (string, bool) { return s, true }

func macPattern(s string) (string, bool) {
	s = strings.ToLower(strings.NewReplacer("-", "", ":", "").Replace(s))
	return s, strings.Trim(s, "0123456789abcdef*?") == "" && (!literal(s) || len(s) == 12)
}

func modePattern(s string) (string, bool) {
	return s, slices.ContainsFunc([]string{"sensor-mode", "access-control-mode", "alarm-mode"}, glob(s).match)
}

func connectorPattern(s string) (string, bool) {
	s = strings.TrimPrefix(s, "J")
	if !literal(s) {
		return s, strings.Trim(s, "0123456789*?") == ""
	}
	n, err := strconv.Atoi(s)
	return s, err == nil && 0 <= n && n <= 99 && strconv.Itoa(n) == s
}

func componentPattern(s string) (string, bool) {
	for _, kind := range []string{"sensor", "motion-sensor", "strike", "reader", "siren"} {
		for n := range 100 {
			if glob(s).match(kind + "-" + strconv.Itoa(n)) {
				return s, true
			}
		}
	}
	return s, glob(s).match("door-sensors") || glob(s).match("exit-buttons")
}

// maxName is how many bytes a person's name has at most.
const maxName = 64

// ValidName reports whether s can be a person's name.
func ValidName(s string) bool {
	return s != "" && len(s) <= maxName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@") == ""
}
