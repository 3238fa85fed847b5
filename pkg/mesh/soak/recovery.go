package soak

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh/local"
)

// Recovery is how long it took after the kills of a group of parts until a row of a message
// was committed that was sent after the kill.
type Recovery struct {
	Kills int           `json:"kills"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	Bound time.Duration `json:"bound_ns"` // of P99
}

// slow reports whether the recovery took longer than it may.
func (r Recovery) slow() bool { return r.P99 > r.Bound }

const (
	stores          = "NATS or PostgreSQL"
	others          = "a service" // bridge, decoder, broker, pooler …
	storesRecovery  = 10 * time.Second
	serviceRecovery = 3 * time.Second
)

// recoveriesOf are those of all kills, by group.
func recoveriesOf(faults []Fault) map[string]Recovery {
	times := map[string][]time.Duration{}
	for _, f := range faults {
		if f.Problem != "" || !f.kills() {
			continue
		}
		group := others
		if f.Target == local.PartNATS || f.Target == local.PartPostgres {
			group = stores
		}
		times[group] = append(times[group], f.Recovery)
	}
	groups := map[string]Recovery{}
	for name, of := range times {
		bound := serviceRecovery
		if name == stores {
			bound = storesRecovery
		}
		groups[name] = Recovery{Kills: len(of), P50: percentile(of, 50), P99: percentile(of, 99), Bound: bound}
	}
	return groups
}

// kills reports whether the fault is the end of one process.
func (f Fault) kills() bool { return f.Kind == "kill" || f.Kind == "kill-broker" }

// slowRecoveries are the groups that were too slow.
func slowRecoveries(groups map[string]Recovery) (problems []string) {
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		if one := groups[name]; one.slow() {
			problems = append(problems, fmt.Sprintf("recovery from the kill of %s took %s (p99 of %d); it may take %s", name, one.P99.Round(time.Millisecond), one.Kills, one.Bound))
		}
	}
	return problems
}

// recoveryTimes are how long it took from a restart to the first row of a message sent after
// it, by what was killed.
func recoveryTimes(faults []Fault) map[string][]time.Duration {
	groups := map[string][]time.Duration{}
	for _, f := range faults {
		if f.Problem != "" {
			continue
		}
		name := f.Kind
		if f.kills() {
			name = "kill " + f.Target
		}
		groups[name] = append(groups[name], f.Recovery)
	}
	return groups
}

// percentile is the value below which p percent are, by the nearest rank.
func percentile(of []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}
