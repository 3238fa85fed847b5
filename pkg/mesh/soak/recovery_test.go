package soak

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func killOf(target string, recovery time.Duration) Fault {
	return Fault{Kind: "kill", Target: target, Recovery: recovery}
}

// A slow recovery is shown in any run, and a problem in one that judges it.
func TestRecoveriesAreJudged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		faults   []Fault
		problems []string
	}{
		"none":             {nil, nil},
		"at the bounds":    {[]Fault{killOf("writer", 3*time.Second), killOf("nats", 10*time.Second)}, nil},
		"a slow service":   {[]Fault{killOf("bridge", time.Second), killOf("pgbouncer", 4*time.Second)}, []string{"the kill of a service took 4s (p99 of 2)"}},
		"the slow broker":  {[]Fault{{Kind: "kill-broker", Target: "mosquitto", Recovery: 4 * time.Second}}, []string{"the kill of a service took 4s"}},
		"a slow database":  {[]Fault{killOf("postgres", 11*time.Second)}, []string{"the kill of NATS or PostgreSQL took 11s"}},
		"both":             {[]Fault{killOf("nats", 11*time.Second), killOf("keeper", 4*time.Second)}, []string{"NATS or PostgreSQL", "a service"}},
		"a slow power cut": {[]Fault{{Kind: "power-cut", Recovery: time.Minute}}, nil},
		"one slow of 100":  {append(slowKills(99, time.Second), killOf("writer", time.Minute)), nil},
		"two slow of 100":  {append(slowKills(98, time.Second), slowKills(2, time.Minute)...), []string{"took 1m0s (p99 of 100)"}},
	} {
		r := &RunReport{Faults: test.faults, Recoveries: recoveriesOf(test.faults), LedgerBalanced: true}
		assert.Empty(t, r.Problems(), name)
		var text strings.Builder
		_, err := r.WriteTo(&text)
		require.NoError(t, err)
		assert.Equal(t, len(test.problems), strings.Count(text.String(), "TOO SLOW"), name)
		r.JudgeSpeed = true
		problems := r.Problems()
		require.Len(t, problems, len(test.problems), name)
		for i := range problems {
			assert.Contains(t, problems[i], test.problems[i], name)
		}
	}
}

func slowKills(n int, recovery time.Duration) (faults []Fault) {
	for range n {
		faults = append(faults, killOf("writer", recovery))
	}
	return faults
}

// A fault without recovery is a problem of its own.
func TestNoRecovery(t *testing.T) {
	t.Parallel()
	f := killOf("writer", 0)
	f.Problem = "no row"
	assert.Empty(t, recoveriesOf([]Fault{f}))
	r := &RunReport{Faults: []Fault{f}, LedgerBalanced: true}
	assert.Len(t, r.Problems(), 1)
}

func TestDrainsAreJudged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		drain  Drain
		judge  bool
		broken string
	}{
		"fast":            {Drain{Held: "writer", Quarter: 500, Rate: 1500, Ratio: 3}, true, ""},
		"slow":            {Drain{Held: "writer", Quarter: 500, Rate: 1400, Ratio: 2.8}, true, "ratio 2.80, required 3: TOO SLOW"},
		"slow, not asked": {Drain{Held: "writer", Quarter: 500, Rate: 1400, Ratio: 2.8}, false, ""},
		"not measured":    {Drain{Held: "bridge", Problem: "no backlog came"}, false, "no backlog came"},
	} {
		r := &RunReport{Drains: []Drain{test.drain}, LedgerBalanced: true, JudgeSpeed: test.judge}
		if test.broken == "" {
			assert.Empty(t, r.Problems(), name)
			continue
		}
		require.Len(t, r.Problems(), 1, name)
		assert.Contains(t, r.Problems()[0], test.broken, name)
	}
	before := counted{rows: 1000, at: time.Unix(0, 0)}
	assert.InDelta(t, 250, counted{rows: 2000, at: time.Unix(4, 0)}.since(before), 0.001)
}
