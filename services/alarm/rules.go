package alarm

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr/vm"
	"go.yaml.in/yaml/v3"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
)

//go:embed default.yaml
var defaultRules []byte

// Rules is a file of rules and receivers.
type Rules struct {
	Rules     []*Rule     `yaml:"rules"`
	Receivers []*Receiver `yaml:"receivers"`
}

// Rule says when an alarm is raised for a component. It holds for each component that it
// selects on its own.
type Rule struct {
	Name     string         `yaml:"name"`
	Summary  string         `yaml:"summary"`
	Severity alert.Severity `yaml:"severity"`

	// What it is for. Each of these may be left out, and has the wildcards * and ?.
	MAC       patterns `yaml:"mac"`
	Mode      patterns `yaml:"mode"`
	Component patterns `yaml:"component"`
	Device    patterns `yaml:"device"` // names of sensor devices
	Connector []int    `yaml:"connector"`

	When     string    `yaml:"when"`
	Clear    string    `yaml:"clear"`
	For      duration  `yaml:"for"`
	Absent   absence   `yaml:"absent"`
	Schedule *Schedule `yaml:"schedule"`

	when, clear *vm.Program
}

// ParseRules parses and checks rules. Its error names the line.
func ParseRules(data []byte) (*Rules, error) {
	var tree yaml.Node
	if err := yaml.Unmarshal(data, &tree); err != nil {
		return nil, fmt.Errorf("reading alarm rules: %w", err)
	}
	r := &Rules{}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(r); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading alarm rules: %w", err)
	}
	var problems error
	names := map[string]bool{}
	for i, rule := range r.Rules {
		at := lineOf(&tree, "rules", i)
		if rule == nil {
			rule = &Rule{}
		}
		err := rule.prepare()
		if err == nil && names[rule.Name] {
			err = fmt.Errorf("rule %q exists twice", rule.Name)
		}
		if err != nil {
			problems = errors.Join(problems, fmt.Errorf("line %d: %w", at, err))
		}
		names[rule.Name] = true
	}
	clear(names)
	for i, receiver := range r.Receivers {
		at := lineOf(&tree, "receivers", i)
		if receiver == nil {
			receiver = &Receiver{}
		}
		err := receiver.check()
		if err == nil && names[receiver.Name] {
			err = fmt.Errorf("receiver %q exists twice", receiver.Name)
		}
		if err != nil {
			problems = errors.Join(problems, fmt.Errorf("line %d: %w", at, err))
		}
		names[receiver.Name] = true
	}
	return r, problems
}

// lineOf returns the line of the i-th element of a list.
func lineOf(tree *yaml.Node, list string, i int) int {
	if len(tree.Content) == 0 {
		return 0
	}
	root := tree.Content[0].Content
	for k := 0; k+1 < len(root); k += 2 {
		if root[k].Value == list && i < len(root[k+1].Content) {
			return root[k+1].Content[i].Line
		}
	}
	return 0
}

var ruleName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`) //nolint:gochecknoglobals // a constant

func (r *Rule) prepare() (err error) {
	problem := func(text string, args ...any) error {
		return fmt.Errorf("rule %q: "+text, append([]any{r.Name}, args...)...)
	}
	if !ruleName.MatchString(r.Name) {
		return problem("name must be 1 to 64 of a-z, 0-9, - and _")
	}
	switch r.Severity {
	case "":
		r.Severity = alert.Warning
	case alert.Info, alert.Warning, alert.Critical:
	default:
		return problem("unknown severity %q; known: info, warning, critical", r.Severity)
	}
	for _, mac := range r.MAC {
		if _, err := topic.ParseMAC(mac); err != nil && !strings.ContainsAny(mac, "*?[") {
			return problem("mac %q is neither a MAC address nor a pattern", mac)
		}
	}
	for _, one := range [][]string{r.MAC, r.Mode, r.Component, r.Device} {
		for _, pattern := range one {
			if _, err := path.Match(pattern, ""); err != nil {
				return problem("pattern %q: %w", pattern, err)
			}
		}
	}
	switch {
	case r.When == "" && !r.Absent.given():
		return problem("needs a condition: when (an expression) or absent (a number of intervals, or a duration)")
	case r.When != "" && r.Absent.given():
		return problem("has when and absent: write two rules")
	case r.Absent.given() && (r.For > 0 || r.Clear != "" || r.Schedule != nil):
		return problem("absent goes without for, clear and schedule")
	case r.For < 0:
		return problem("for must not be negative")
	}
	if r.When != "" {
		if r.when, err = compile(r.When); err != nil {
			return problem("when: %w", err)
		}
	}
	if r.Clear != "" {
		if r.clear, err = compile(r.Clear); err != nil {
			return problem("clear: %w", err)
		}
	}
	if err := r.Schedule.prepare(); err != nil {
		return problem("schedule: %w", err)
	}
	return nil
}

// patterns are one pattern or a list of them. None match everything.
type patterns []string

// UnmarshalYAML reads one pattern or a list.
func (p *patterns) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*p = patterns{node.Value}
		return nil
	}
	return node.Decode((*[]string)(p))
}

func (p patterns) match(text string) bool {
	for _, pattern := range p {
		if ok, _ := path.Match(pattern, text); ok {
			return true
		}
	}
	return len(p) == 0
}

// matchMAC also takes addresses in other notations.
func (p patterns) matchMAC(mac string) bool {
	for _, pattern := range p {
		if parsed, err := topic.ParseMAC(pattern); err == nil && string(parsed) == mac {
			return true
		}
	}
	return p.match(mac)
}

type duration time.Duration

// UnmarshalText reads a duration with days and weeks.
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := plain.ParseDuration(string(text))
	*d = duration(parsed)
	return err
}

// absence is how long a component may send nothing: a number of its usual intervals, or a
// duration.
type absence struct {
	intervals int
	after     time.Duration
}

// UnmarshalText reads a number or a duration.
func (a *absence) UnmarshalText(text []byte) error {
	if n, err := strconv.Atoi(string(text)); err == nil {
		if n < 1 {
			return fmt.Errorf("absent: %d intervals; it must be at least 1", n)
		}
		a.intervals = n
		return nil
	}
	d, err := plain.ParseDuration(string(text))
	if err == nil && d <= 0 {
		err = fmt.Errorf("absent: %s must be positive", d)
	}
	a.after = d
	return err
}

func (a absence) given() bool { return a.intervals > 0 || a.after > 0 }

// Limits of what counts as a component's usual interval.
const (
	shortestInterval = 10 * time.Second
	unknownInterval  = 5 * time.Minute
)

// limit returns how long a component with that usual interval may be silent; 0: not known.
func (a absence) limit(interval time.Duration) time.Duration {
	if a.intervals == 0 {
		return a.after
	}
	if interval == 0 {
		interval = unknownInterval
	}
	return time.Duration(a.intervals) * max(interval, shortestInterval)
}
