package decoder

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// cache holds the metadata of the controllers that sent last, also of unknown ones. It is
// safe for concurrent use.
type cache struct {
	load            func(context.Context, []topic.MAC) (map[topic.MAC]*controller, error)
	ttl, unknownTTL time.Duration
	entries         *lru.Cache[topic.MAC, entry]
	log             *slog.Logger
	metrics         *metrics
	// generation counts invalidations: metadata that was read before an invalidation must
	// not be stored after it.
	generation   atomic.Uint64
	invalidating sync.Mutex // keeps invalidations out of store's check and Add
	// away is until when PostgreSQL counts as unavailable, in Unix nanoseconds.
	away atomic.Int64
	// changed is called after an invalidation: of one controller, or of all with "".
	changed func(topic.MAC)
}

const (
	// readTimeout is how long one query for metadata may take. After a failure no query is
	// made for as long: otherwise each controller of the fleet would wait in turn.
	readTimeout = 5 * time.Second
	// lookupBudget is how long one batch waits for metadata in total.
	lookupBudget = time.Second
)

type entry struct {
	controller *controller // nil: unknown
	loaded     time.Time
}

func newCache(cfg *Config, load func(context.Context, []topic.MAC) (map[topic.MAC]*controller, error), metrics *metrics, log *slog.Logger) (*cache, error) {
	entries, err := lru.New[topic.MAC, entry](cfg.CacheControllers)
	if err != nil {
		return nil, err
	}
	return &cache{
		load: load, log: log, entries: entries, metrics: metrics, changed: func(topic.MAC) {},
		ttl:        time.Duration(cfg.CacheTTL) * time.Second,
		unknownTTL: time.Duration(cfg.CacheUnknownTTL) * time.Second,
	}, nil
}

// errAway is the error while no query is made because a recent one failed.
var errAway = errors.New("the metadata database does not respond")

// get returns a controller's metadata, or nil for an unknown controller. It waits no longer
// than ctx and readTimeout. While the metadata cannot be read, it returns the last known
// metadata, or an error if there is none.
func (c *cache) get(ctx context.Context, mac topic.MAC) (*controller, error) {
	generation := c.generation.Load()
	known, ok := c.entries.Get(mac)
	if ok && c.isFresh(known) {
		c.metrics.hits.Inc()
		return known.controller, nil
	}
	ok = ok && known.controller != nil
	if time.Now().UnixNano() < c.away.Load() {
		if ok {
			return known.controller, nil
		}
		return nil, errAway
	}
	c.metrics.misses.Inc()
	found, err := c.read(ctx, mac, generation)
	if err == nil || !ok {
		return found, err
	}
	c.log.Warn("cannot read metadata, using the last known metadata", "mac", mac, "error", err)
	known.loaded = time.Now().Add(c.unknownTTL - c.ttl) // read again soon, but not for every message
	c.store(mac, known, generation)
	return known.controller, nil
}

// read queries PostgreSQL. If PostgreSQL itself fails, and not the query for this controller,
// no further query is made for a while.
func (c *cache) read(ctx context.Context, mac topic.MAC, generation uint64) (*controller, error) {
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	began := time.Now()
	found, err := c.load(bounded, []topic.MAC{mac})
	if err == nil {
		c.store(mac, entry{controller: found[mac], loaded: time.Now()}, generation)
		return found[mac], nil
	}
	c.judge(ctx, err, began, generation)
	return nil, err
}

// readAhead reads those of macs that get would have to read, with one query. If that fails,
// get reads each by itself.
func (c *cache) readAhead(ctx context.Context, macs []topic.MAC) {
	generation := c.generation.Load()
	due := slices.DeleteFunc(macs, c.has)
	if len(due) < 2 || time.Now().UnixNano() < c.away.Load() {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	began := time.Now()
	found, err := c.load(bounded, due)
	if err != nil {
		c.judge(ctx, err, began, generation)
		return
	}
	c.metrics.misses.Add(float64(len(due)))
	for _, mac := range due {
		c.store(mac, entry{controller: found[mac], loaded: time.Now()}, generation)
	}
}

// judge has no further query be made for a while if an error would hit every controller.
func (c *cache) judge(ctx context.Context, err error, began time.Time, generation uint64) {
	// Earlier queries of the batch may have used up the time of ctx.
	if everybodys(err) && (ctx.Err() == nil || time.Since(began) > lookupBudget/2) && !errors.Is(ctx.Err(), context.Canceled) {
		c.leaveAlone(generation)
	}
}

// everybodys reports whether an error would hit every controller, and is not about this
// controller's rows.
func everybodys(err error) bool {
	var refusal *pgconn.PgError
	if !errors.As(err, &refusal) {
		var row pgx.ScanArgError
		return !errors.As(err, &row)
	}
	if len(refusal.Code) != 5 {
		return true
	}
	switch refusal.Code[:2] {
	case "08", "28", "53", "57", "58": // connection, login, resources, operator, system
		return true
	}
	return false
}

// store stores e unless there was an invalidation since generation.
func (c *cache) store(mac topic.MAC, e entry, generation uint64) {
	c.invalidating.Lock()
	defer c.invalidating.Unlock()
	if c.generation.Load() == generation {
		c.entries.Add(mac, e)
	}
}

// leaveAlone marks PostgreSQL as unavailable, unless there was an invalidation since
// generation.
func (c *cache) leaveAlone(generation uint64) {
	c.invalidating.Lock()
	defer c.invalidating.Unlock()
	if c.generation.Load() == generation {
		c.away.Store(time.Now().Add(readTimeout).UnixNano())
	}
}

func (c *cache) isFresh(e entry) bool { return time.Since(e.loaded) < c.lifetime(e) }

// has reports whether get would return without a query.
func (c *cache) has(mac topic.MAC) bool {
	known, ok := c.entries.Peek(mac)
	return ok && c.isFresh(known)
}

func (c *cache) lifetime(e entry) time.Duration {
	if e.controller == nil {
		return c.unknownTTL
	}
	return c.ttl
}

// forget drops the metadata of one controller.
func (c *cache) forget(mac topic.MAC) {
	c.invalidate(func() { c.entries.Remove(mac) })
	c.changed(mac)
}

// expire has all metadata read again, but keeps it in case PostgreSQL is not available.
func (c *cache) expire() {
	c.invalidate(func() {
		for _, mac := range c.entries.Keys() {
			if e, ok := c.entries.Peek(mac); ok {
				e.loaded = time.Time{}
				c.entries.Add(mac, e)
			}
		}
	})
	c.changed("")
}

func (c *cache) invalidate(drop func()) {
	c.invalidating.Lock()
	defer c.invalidating.Unlock()
	c.generation.Add(1)
	c.away.Store(0)
	drop()
}
