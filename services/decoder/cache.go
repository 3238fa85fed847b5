package decoder

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/f2mesh/f2mesh/pkg/postgres"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// cache holds the metadata of the controllers heard of last, unknown ones too.
// It is safe for concurrent use.
type cache struct {
	load            func(context.Context, topic.MAC) (*controller, error)
	ttl, unknownTTL time.Duration
	entries         *lru.Cache[topic.MAC, entry]
	log             *slog.Logger
	metrics         *metrics
	// generation counts invalidations: what was read before one must not be
	// stored after it.
	generation   atomic.Uint64
	invalidating sync.Mutex // an invalidation does not fall between store's look and its Add
	// away is until when PostgreSQL is taken to be away, in Unix nanoseconds.
	away atomic.Int64
}

// readTimeout bounds one reading of metadata. After one that failed PostgreSQL is
// left alone for as long, or a whole fleet would wait for it one by one.
const readTimeout = 5 * time.Second

type entry struct {
	controller *controller // nil: unknown
	loaded     time.Time
}

func newCache(cfg *Config, load func(context.Context, topic.MAC) (*controller, error), metrics *metrics, log *slog.Logger) (*cache, error) {
	entries, err := lru.New[topic.MAC, entry](cfg.CacheControllers)
	if err != nil {
		return nil, err
	}
	return &cache{
		load: load, log: log, entries: entries, metrics: metrics,
		ttl:        time.Duration(cfg.CacheTTL) * time.Second,
		unknownTTL: time.Duration(cfg.CacheUnknownTTL) * time.Second,
	}, nil
}

// get answers nil for a controller that the metadata does not know. While
// PostgreSQL is away it answers what it last knew, and where it never knew it
// waits, until ctx ends: an outage is not the message's fault.
func (c *cache) get(ctx context.Context, mac topic.MAC) (*controller, error) {
	generation := c.generation.Load()
	known, ok := c.entries.Get(mac)
	if ok && time.Since(known.loaded) < c.lifetime(known) {
		c.metrics.hits.Inc()
		return known.controller, nil
	}
	c.metrics.misses.Inc()
	read := func() (*controller, error) {
		generation := c.generation.Load()
		bounded, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		found, err := c.load(bounded, mac)
		if err == nil {
			c.store(mac, entry{controller: found, loaded: time.Now()}, generation)
		}
		return found, err
	}
	if ok && known.controller != nil {
		if time.Now().UnixNano() < c.away.Load() {
			return known.controller, nil
		}
		found, err := read()
		if err != nil {
			c.leaveAlone(generation)
			c.log.Warn("metadata cannot be read, using what was known", "mac", mac, "error", err)
			known.loaded = time.Now().Add(c.unknownTTL - c.ttl) // ask again soon, not for every message
			c.store(mac, known, generation)
			return known.controller, nil
		}
		return found, nil
	}
	wait := backoff.NewExponentialBackOff()
	wait.MaxInterval = 5 * time.Second
	return backoff.Retry(ctx, func() (*controller, error) {
		found, err := read()
		if postgres.Refused(err) {
			wait.Reset() // the credential is being looked up
		}
		return found, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, next time.Duration) {
		c.log.Warn("metadata cannot be read, waiting", "mac", mac, "error", err, "retry_in", next.Round(time.Millisecond).String())
	}))
}

// store keeps e unless there was an invalidation since generation.
func (c *cache) store(mac topic.MAC, e entry, generation uint64) {
	c.invalidating.Lock()
	defer c.invalidating.Unlock()
	if c.generation.Load() == generation {
		c.entries.Add(mac, e)
	}
}

// leaveAlone takes PostgreSQL to be away, unless it has just told of a change.
func (c *cache) leaveAlone(generation uint64) {
	c.invalidating.Lock()
	defer c.invalidating.Unlock()
	if c.generation.Load() == generation {
		c.away.Store(time.Now().Add(readTimeout).UnixNano())
	}
}

func (c *cache) lifetime(e entry) time.Duration {
	if e.controller == nil {
		return c.unknownTTL
	}
	return c.ttl
}

// forget drops what is known of one controller.
func (c *cache) forget(mac topic.MAC) {
	c.invalidating.Lock()
	defer c.invalidating.Unlock()
	c.generation.Add(1)
	c.away.Store(0)
	c.entries.Remove(mac)
}

// expire makes everything due for reading again, but keeps it for the case that
// PostgreSQL does not answer.
func (c *cache) expire() {
	c.invalidating.Lock()
	defer c.invalidating.Unlock()
	c.generation.Add(1)
	c.away.Store(0)
	for _, mac := range c.entries.Keys() {
		if e, ok := c.entries.Peek(mac); ok {
			e.loaded = time.Time{}
			c.entries.Add(mac, e)
		}
	}
}
