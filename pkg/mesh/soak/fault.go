package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

// Fault is one thing that goes wrong in a run.
type Fault struct {
	Kind   string        `json:"kind"`
	Target string        `json:"target,omitempty"`
	Hold   time.Duration `json:"hold_ns,omitempty"` // how long it lasts

	At       time.Time     `json:"at"`          // when it happened
	Healed   time.Time     `json:"healed"`      // when what it broke could work again
	Recovery time.Duration `json:"recovery_ns"` // from then to the first committed row of a message that was sent after
	Problem  string        `json:"problem,omitempty"`
}

func (f Fault) String() string {
	text := f.Kind
	if f.Target != "" {
		text += " " + f.Target
	}
	if f.Hold > 0 {
		text += " " + f.Hold.Round(100*time.Millisecond).String()
	}
	return text
}

// faultKind is a way to break a mesh.
type faultKind struct {
	name    string
	weight  int
	targets func(s *system) []string
	hold    [2]time.Duration // the shortest and the longest
	brokers bool             // it can lose what only the broker has (design 5.10)
	// inject breaks, waits, and heals. It returns when what it broke could work again.
	inject func(ctx context.Context, s *system, f *Fault) (healed time.Time, err error)
	// missing says why this machine cannot do it; "" if it can.
	missing func(cfg *Config) string
	// after, if set, is what an operator does once messages flow again.
	after func(ctx context.Context, s *system) error
}

// Kinds are the names of all kinds of faults.
func Kinds() (names []string) {
	for _, k := range faultKinds() {
		names = append(names, k.name)
	}
	return names
}

func faultKinds() []faultKind {
	all := func(names ...string) func(*system) []string { return func(*system) []string { return names } }
	everything := func(s *system) []string { return s.breakable }
	links := func(s *system) []string { return s.usedLinks() }
	needsDisk := func(cfg *Config) string {
		if cfg.Compose != "" {
			return "the containers share the machine's disk with everything else"
		}
		if cfg.diskProblem != nil {
			return cfg.diskProblem.Error()
		}
		return ""
	}
	needsVault := func(cfg *Config) string {
		if cfg.Compose != "" {
			return "only people can unseal the Vault of the containers"
		}
		if cfg.vaultProblem != nil {
			return cfg.vaultProblem.Error()
		}
		return ""
	}
	needsLinks := func(cfg *Config) string {
		if cfg.Compose != "" {
			return "between containers there is no link that can be cut"
		}
		return ""
	}
	onlyContainers := func(cfg *Config) string {
		if cfg.Compose == "" {
			return "for a mesh in containers (--compose)"
		}
		return ""
	}
	return []faultKind{
		{name: "kill", weight: 10, targets: everything, inject: killed},
		{name: "kill-unacknowledged", weight: 4, targets: all("bridge-mosquitto", "bridge-nats", "decoder-nats", "writer-nats"), hold: [2]time.Duration{time.Second / 2, 2 * time.Second}, inject: killedUnacknowledged, missing: needsLinks},
		{name: "kill-unstored", weight: 3, targets: all("bridge-nats", "decoder-nats", "writer-pgbouncer"), hold: [2]time.Duration{time.Second / 2, 2 * time.Second}, inject: killedUnstored, missing: needsLinks},
		{name: "kill-broker", weight: 3, targets: all(local.PartMosquitto), inject: killed, brokers: true},
		{name: "kill-broker-behind", weight: 2, targets: all(local.PartMosquitto), hold: [2]time.Duration{3 * time.Second, 6 * time.Second}, inject: killedBehind, brokers: true},
		{name: "kill-broker-unsaved", weight: 2, targets: all(local.PartMosquitto), hold: [2]time.Duration{time.Second, 2 * time.Second}, inject: killedUnsaved, brokers: true, missing: needsLinks},
		{name: "pause", weight: 5, targets: everything, hold: [2]time.Duration{2 * time.Second, 30 * time.Second}, inject: paused},
		{name: "stall", weight: 1, targets: all(local.PartDecoder, local.PartWriter), hold: [2]time.Duration{time.Minute, 2 * time.Minute}, inject: paused, missing: func(cfg *Config) string {
			if cfg.Messages < 100_000 {
				return "minutes are too long for a run of fewer than 100,000 messages"
			}
			return ""
		}},
		{name: "pause-broker", weight: 1, targets: all(local.PartMosquitto), hold: [2]time.Duration{2 * time.Second, 15 * time.Second}, inject: paused},
		{name: "partition", weight: 5, targets: links, hold: [2]time.Duration{2 * time.Second, 20 * time.Second}, inject: linked(condition{blocked: true})},
		{name: "reset", weight: 4, targets: links, inject: reset},
		{name: "latency", weight: 3, targets: links, hold: [2]time.Duration{3 * time.Second, 10 * time.Second}, inject: linked(condition{latency: 100 * time.Millisecond})},
		{name: "loss", weight: 3, targets: links, hold: [2]time.Duration{3 * time.Second, 10 * time.Second}, inject: linked(condition{stall: 50})},
		{name: "slow", weight: 3, targets: links, hold: [2]time.Duration{3 * time.Second, 10 * time.Second}, inject: linked(condition{rate: 64 << 10})},
		{name: "power-cut", weight: 5, inject: powerCut, brokers: true, missing: needsDisk, after: unsealed},
		{name: "disk-full", weight: 1, hold: [2]time.Duration{3 * time.Second, 10 * time.Second}, inject: diskFull, missing: needsDisk, brokers: true, after: unsealed},
		{name: "stream-limit", weight: 2, targets: all("RAW", "DECODED"), hold: [2]time.Duration{2 * time.Second, 8 * time.Second}, inject: streamLimit},
		{name: "rotate", weight: 3, targets: all(
			"nats_bridge_password", "nats_decoder_password", "nats_writer_password", mesh.SecretMQTTPassword, mesh.SecretTimescale, mesh.SecretPostgres,
		), inject: rotated},
		{name: "vault-sealed", weight: 3, targets: all(local.PartBridge, local.PartDecoder, local.PartWriter), hold: [2]time.Duration{3 * time.Second, 15 * time.Second}, inject: vaultSealed, missing: needsVault, after: unsealed},
		{name: "kill-vault", weight: 2, hold: [2]time.Duration{3 * time.Second, 15 * time.Second}, inject: killedVault, missing: needsVault, after: unsealed},
		{name: "revoke", weight: 1, inject: revoked},
		{name: "upgrade", weight: 1, inject: upgraded, missing: func(cfg *Config) string {
			if cfg.Compose != "" {
				return "containers run the program of their image"
			}
			if cfg.UpgradeFrom == "" {
				return "no program of an earlier release was named"
			}
			return ""
		}},
		{name: "kill-all", weight: 3, inject: killedAll, missing: onlyContainers, brokers: true},
		{name: "restart", weight: 3, targets: func(s *system) []string { return slices.Concat(everything(s), []string{local.PartMosquitto}) }, inject: restarted, missing: onlyContainers},
	}
}

// plan is the schedule that a seed has. It is the same on every machine that can do the
// same kinds.
func plan(kinds []faultKind, seed uint64, n int) (planned []plannedFault) {
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // it has to repeat
	// Each kind comes before one comes twice, as far as the number allows.
	order := random.Perm(len(kinds))
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	for i := range n {
		k := kinds[0]
		if i < len(order) {
			k = kinds[order[i]]
		} else {
			at := random.IntN(total)
			for _, k = range kinds {
				if at -= k.weight; at < 0 {
					break
				}
			}
		}
		planned = append(planned, plannedFault{k, random.Uint32(), k.hold[0] + time.Duration(random.Float64()*float64(k.hold[1]-k.hold[0]))})
	}
	return planned
}

// plannedFault is a fault whose target is chosen when the mesh runs.
type plannedFault struct {
	kind   faultKind
	target uint32
	hold   time.Duration
}

func (p plannedFault) on(s *system) Fault {
	f := Fault{Kind: p.kind.name, Hold: cmp.Or(s.cfg.hold, p.hold)}
	if p.kind.targets != nil {
		targets := p.kind.targets(s)
		f.Target = cmp.Or(s.cfg.Target, targets[int(p.target)%len(targets)])
	}
	return f
}

// checkTarget returns an error unless faults of each kind that has a choice can hit the target.
func checkTarget(s *system, kinds []faultKind, target string) error {
	for _, k := range kinds {
		if target == "" || k.targets == nil {
			continue
		}
		if known := k.targets(s); !slices.Contains(known, target) {
			return fmt.Errorf("--target %s: faults of kind %s hit %s; choose others with --kinds", target, k.name, strings.Join(known, ", "))
		}
	}
	return nil
}

func killed(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	ended, err := s.kill(ctx, f.Target)
	f.At = ended
	return time.Now(), err
}

// killedUnacknowledged kills a service whose work is stored, and the acknowledgement is not:
// the server stored what the service sent, but its answer does not arrive (bridge-nats,
// decoder-nats), or the service's own acknowledgement does not (the others).
func killedUnacknowledged(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	if f.Target == "bridge-nats" || f.Target == "decoder-nats" {
		return s.killMute(ctx, f, toClient)
	}
	return s.killMute(ctx, f, toServer)
}

// killedUnstored kills a service that has taken messages and could not store them.
func killedUnstored(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	return s.killMute(ctx, f, toServer)
}

// killMute kills the service of a link after nothing passed it in one direction.
func (s *system) killMute(ctx context.Context, f *Fault, way direction) (time.Time, error) {
	service, _, _ := strings.Cut(f.Target, "-")
	l := s.links[f.Target]
	l.set(condition{blocked: true, oneWay: way})
	hold(ctx, f.Hold)
	_, err := s.kill(ctx, service)
	l.cut() // what was held back must not arrive after all
	l.set(condition{})
	return time.Now(), err
}

// killedBehind kills the broker while it holds what the bridge has not fetched.
func killedBehind(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	if err := s.pause(ctx, local.PartBridge, true); err != nil {
		return time.Now(), err
	}
	hold(ctx, f.Hold)
	ended, err := s.kill(ctx, f.Target)
	f.At = ended
	return time.Now(), errors.Join(err, s.pause(ctx, local.PartBridge, false))
}

func killedUnsaved(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	ended, err := s.killUnsaved(ctx, f.Hold)
	f.At = ended
	return time.Now(), err
}

func paused(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	if err := s.pause(ctx, f.Target, true); err != nil {
		return time.Now(), err
	}
	hold(ctx, f.Hold)
	err := s.pause(ctx, f.Target, false)
	return time.Now(), err
}

func killedAll(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	ended, err := s.containers().killAll(ctx)
	f.At = ended
	return time.Now(), err
}

// restarted ends a part in order, and starts it again.
func restarted(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	err := s.containers().restart(ctx, f.Target)
	return time.Now(), err
}

func linked(c condition) func(context.Context, *system, *Fault) (time.Time, error) {
	return func(ctx context.Context, s *system, f *Fault) (time.Time, error) {
		s.links[f.Target].set(c)
		hold(ctx, f.Hold)
		s.links[f.Target].set(condition{})
		return time.Now(), nil
	}
}

func reset(_ context.Context, s *system, f *Fault) (time.Time, error) {
	s.links[f.Target].cut()
	return time.Now(), nil
}

func powerCut(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	cut, up, err := s.local().powerCut(ctx)
	f.At = cut
	return up, err
}

func diskFull(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	free, err := s.local().disk.fill()
	if err != nil {
		return time.Now(), err
	}
	hold(ctx, f.Hold)
	err = free()
	return time.Now(), err
}

// streamLimit has a stream take nothing more for a while.
func streamLimit(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	set := func(change func(*jetstream.StreamConfig)) error {
		return within(ctx, time.Minute, "the stream has its limit", func(ctx context.Context) bool {
			st, err := s.js.Stream(ctx, f.Target)
			if err != nil {
				return false
			}
			config := st.CachedInfo().Config
			change(&config)
			_, err = s.js.UpdateStream(ctx, config)
			return err == nil
		})
	}
	st, err := s.js.Stream(ctx, f.Target)
	if err != nil {
		return time.Now(), fmt.Errorf("asking for stream %s: %w", f.Target, err)
	}
	limit := max(int64(st.CachedInfo().State.Msgs), 1) //nolint:gosec // far from the end
	before := st.CachedInfo().Config.MaxMsgs
	if err := set(func(c *jetstream.StreamConfig) { c.MaxMsgs = limit }); err != nil {
		return time.Now(), err
	}
	hold(ctx, f.Hold)
	err = set(func(c *jetstream.StreamConfig) { c.MaxMsgs = before })
	return time.Now(), err
}

func rotated(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	err := s.f2mesh(ctx, "secret", "rotate", f.Target)
	return time.Now(), err
}

// vaultSealed seals Vault and then kills a service, which has to start with what its secret files have.
func vaultSealed(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	v := s.local().vault
	if err := vault.Seal(ctx, v.cfg, v.root); err != nil {
		return time.Now(), err
	}
	hold(ctx, f.Hold)
	return killed(ctx, s, f)
}

// killedVault kills Vault, which is sealed when it has started again.
func killedVault(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	_, err := s.kill(ctx, partVault)
	hold(ctx, f.Hold)
	return time.Now(), err
}

// unsealed is what an operator does after a fault that left Vault sealed, once messages flow.
func unsealed(ctx context.Context, s *system) error { return s.local().unsealVault(ctx) }

// revoked takes a spare controller's certificate away, which must not be let in afterwards.
func revoked(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	if len(s.spares) == 0 {
		return time.Now(), nil
	}
	spare := s.spares[0]
	s.spares = s.spares[1:]
	f.Target = string(spare.fleet.MAC)
	if err := spare.tryLogIn(ctx); err != nil {
		return time.Now(), fmt.Errorf("the controller could not log in before it was revoked: %w", err)
	}
	if err := s.f2mesh(ctx, "device", "revoke", f.Target); err != nil {
		return time.Now(), err
	}
	if spare.tryLogIn(ctx) == nil {
		return time.Now(), fmt.Errorf("controller %s was let in after it was revoked", f.Target)
	}
	return time.Now(), nil
}

// upgraded replaces the services of an earlier release, one after the other, and against the data
// path: a service does not understand what a newer one before it sends.
func upgraded(ctx context.Context, s *system, f *Fault) (time.Time, error) {
	f.Target = "all services"
	for _, name := range slices.Backward(services) {
		s.local().services[name].halt(true)
		s.local().services[name].replace(s.cfg.Program)
		if err := s.local().services[name].start(); err != nil {
			return time.Now(), err
		}
		hold(ctx, time.Second)
	}
	return time.Now(), nil
}
