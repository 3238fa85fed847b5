package console

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	// unused is how long after the last page the fleet is no longer followed.
	unused = 10 * time.Minute
	// registryAge is how old the list of registered controllers may be.
	registryAge = 30 * time.Second
	// patience is how long a page waits for the fleet's last states.
	patience = 15 * time.Second
	// silentAfter is how long a controller may say nothing. The registrar's alarm `silent` has
	// the same default.
	silentAfter = 5 * time.Minute
	// soonExpires is how long before its end a certificate is pointed out.
	soonExpires = 30 * 24 * time.Hour

	latestPrefix  = "$KV.LATEST."
	decodedPrefix = "f2.decoded."
)

// States of a controller, in words that pages and addresses use.
const (
	stateReporting = "reporting"
	stateSilent    = "silent"
	stateNever     = "never heard"
	stateRevoked   = "revoked"
	stateUnknown   = "not registered"
)

// device is a controller as lists show it.
type device struct {
	MAC                topic.MAC
	Name               string
	Serial             string // on its label
	Status             string // active or revoked, "" if it is not registered
	Expires            time.Time
	Seen               time.Time // when the bridge last received something that decodes
	Revoked            time.Time
	OwnKey             bool
	Since              time.Time // registered
	CertSerial, Reason string
}

// State is the device's state in one word.
func (d *device) State(now time.Time) string {
	switch {
	case d.Status == "revoked":
		return stateRevoked
	case d.Status == "":
		return stateUnknown
	case d.Seen.IsZero():
		return stateNever
	case now.Sub(d.Seen) > silentAfter:
		return stateSilent
	}
	return stateReporting
}

// ExpiresSoon reports whether the certificate has to be renewed.
func (d *device) ExpiresSoon(now time.Time) bool {
	return d.Status == "active" && d.Expires.Sub(now) < soonExpires
}

// fleet follows the controllers while somebody looks: who is registered, and when each was
// last heard. It has the console's one subscription to DECODED, whatever the number of
// browsers. It is safe for concurrent use.
type fleet struct {
	from   Sources
	schema string
	live   *live
	log    *slog.Logger
	wake   chan struct{}

	mu         sync.Mutex // guards the fields below
	used       time.Time
	ready      chan struct{} // closed once the fields below are filled
	seen       map[topic.MAC]time.Time
	registered map[topic.MAC]device
	names      map[topic.MAC]string
	failed     error // why the last reading of the databases failed
}

func newFleet(from Sources, schema string, live *live, log *slog.Logger) *fleet {
	return &fleet{from: from, schema: schema, live: live, log: log, wake: make(chan struct{}, 1), ready: make(chan struct{})}
}

// use notes that somebody looks.
func (f *fleet) use() {
	f.mu.Lock()
	f.used = time.Now()
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *fleet) inUse() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.used) < unused
}

// run follows the fleet whenever it is used, until ctx ends.
func (f *fleet) run(ctx context.Context) {
	for ctx.Err() == nil {
		if !f.inUse() {
			select {
			case <-ctx.Done():
			case <-f.wake:
			}
			continue
		}
		if err := f.follow(ctx); err != nil && ctx.Err() == nil {
			f.log.Warn("the console cannot follow the fleet", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

// follow follows the fleet until nobody has used it for a while.
func (f *fleet) follow(ctx context.Context) error {
	f.mu.Lock()
	f.seen = map[topic.MAC]time.Time{}
	f.mu.Unlock()
	nc := f.from.Streams.JetStream().Conn()
	heard, err := nc.Subscribe(decodedPrefix+">", f.hear)
	if err != nil {
		return fmt.Errorf("subscribing to DECODED: %w", err)
	}
	defer func() { _ = heard.Unsubscribe() }()
	err = heard.SetPendingLimits(1<<16, 32<<20)
	if err == nil {
		err = f.readLatest(ctx)
	}
	if err != nil {
		return err
	}
	f.readRegistry(ctx)
	f.mu.Lock()
	close(f.ready)
	f.mu.Unlock()
	for f.inUse() {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(registryAge):
		}
		f.readRegistry(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ready, f.seen, f.registered, f.names = make(chan struct{}), nil, nil, nil
	return nil
}

// hear takes a message of DECODED as it is published.
func (f *fleet) hear(m *nats.Msg) {
	f.live.decoded.Add(1)
	mac, _, ok := strings.Cut(strings.TrimPrefix(m.Subject, decodedPrefix), ".")
	if !ok {
		return
	}
	of := topic.MAC(mac)
	now := time.Now()
	f.mu.Lock()
	if at, known := f.seen[of]; known {
		if now.Sub(at) > time.Second {
			f.seen[of] = now
		}
	} else if f.seen != nil {
		f.seen[topic.MAC(strings.Clone(mac))] = now
	}
	f.mu.Unlock()
	f.live.tell(of, m.Subject[len(decodedPrefix)+len(mac)+1:], update{m.Subject, m.Data})
}

// readLatest reads when each controller was last heard before now.
func (f *fleet) readLatest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return read(ctx, f.from.Streams.JetStream(), stream.Latest, latestPrefix+">", 1, func(m *jetstream.RawStreamMsg) error {
		mac, _, _ := strings.Cut(strings.TrimPrefix(m.Subject, latestPrefix), ".")
		at, err := time.Parse(time.RFC3339Nano, m.Header.Get(event.HeaderReceived))
		if err != nil {
			at = m.Time
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.seen[topic.MAC(mac)].Before(at) {
			f.seen[topic.MAC(strings.Clone(mac))] = at
		}
		return nil
	})
}

// readRegistry reads who is registered, and the controllers' names. What was read before
// stays if a database cannot be asked.
func (f *fleet) readRegistry(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	registered, err := f.queryRegistry(ctx)
	var names map[topic.MAC]string
	if err == nil {
		names, err = f.queryNames(ctx)
	}
	if err != nil && ctx.Err() == nil {
		f.log.Warn("the console cannot read the registered controllers", "error", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = err
	if err == nil {
		f.registered, f.names = registered, names
	}
}

func (f *fleet) queryRegistry(ctx context.Context) (map[topic.MAC]device, error) {
	rows, err := f.from.Registry.Query(ctx, `
SELECT d.mac, d.serial_number, d.status, c.not_after, d.own_key, d.registered_at, coalesce(d.revoked_at, 'epoch'), c.serial
FROM public.device d JOIN public.certificate c USING (issuer, serial)`)
	if err != nil {
		return nil, fmt.Errorf("reading the registry: %w", err)
	}
	all := map[topic.MAC]device{}
	var d device
	_, err = pgx.ForEachRow(rows, []any{&d.MAC, &d.Serial, &d.Status, &d.Expires, &d.OwnKey, &d.Since, &d.Revoked, &d.CertSerial}, func() error {
		all[d.MAC] = d
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the registry: %w", err)
	}
	return all, nil
}

func (f *fleet) queryNames(ctx context.Context) (map[topic.MAC]string, error) {
	rows, err := f.from.Metadata.Query(ctx, `SELECT "MacAddress"::text, "DeviceName"::text FROM `+
		pgx.Identifier{f.schema, "Device"}.Sanitize()+` WHERE "MacAddress" IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("reading the metadata: %w", err)
	}
	all := map[topic.MAC]string{}
	var mac, name string
	_, err = pgx.ForEachRow(rows, []any{&mac, &name}, func() error {
		if m, err := topic.ParseMAC(mac); err == nil {
			all[m] = name
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the metadata: %w", err)
	}
	return all, nil
}

// wait returns once it is known what LATEST has.
func (f *fleet) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f.mu.Lock()
	ready := f.ready
	f.mu.Unlock()
	select {
	case <-ready:
	case <-ctx.Done():
		return fmt.Errorf("reading the fleet: %w", ctx.Err())
	}
	return nil
}

// devices lists the controllers, by MAC.
func (f *fleet) devices(ctx context.Context) ([]device, error) {
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.registered == nil {
		return nil, f.failed
	}
	all := make([]device, 0, len(f.registered))
	for mac := range f.registered {
		all = append(all, f.device(mac))
	}
	for mac := range f.seen {
		if _, ok := f.registered[mac]; !ok {
			all = append(all, f.device(mac))
		}
	}
	slices.SortFunc(all, func(x, y device) int { return strings.Compare(string(x.MAC), string(y.MAC)) })
	return all, nil
}

// device is what is known of one. The caller has mu.
func (f *fleet) device(mac topic.MAC) device {
	d := f.registered[mac]
	d.MAC, d.Name, d.Seen = mac, f.names[mac], f.seen[mac]
	return d
}

// unread reports whether the registered controllers could not be read yet.
func (f *fleet) unread() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.registered == nil
}

// find returns one controller; false if nothing is known of it. While a database cannot be
// asked, that is what LATEST has.
func (f *fleet) find(ctx context.Context, mac topic.MAC) (d device, ok bool, err error) {
	if err := f.wait(ctx); err != nil {
		return d, false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, registered := f.registered[mac]
	_, heard := f.seen[mac]
	_, named := f.names[mac]
	return f.device(mac), registered || heard || named, nil
}

// name is a controller's name in the metadata, as far as they were read.
func (f *fleet) name(mac topic.MAC) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names[mac]
}

// states counts controllers by their state.
func states(all []device, now time.Time) map[string]int {
	counts := map[string]int{}
	for i := range all {
		counts[all[i].State(now)]++
	}
	return counts
}

func stateNames() []string {
	return []string{stateReporting, stateSilent, stateNever, stateRevoked, stateUnknown, stateExpiring}
}

// stateExpiring chooses by the certificate, whatever the state.
const stateExpiring = "certificate expires soon"
