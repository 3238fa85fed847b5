package decoder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// source is the metadata of one controller. It counts how often they were read.
type source struct {
	controller *controller
	err        error
	during     func() // what happens while it is read
	reads      int
}

func (s *source) load(_ context.Context, macs []topic.MAC) (map[topic.MAC]*controller, error) {
	s.reads++
	found := map[topic.MAC]*controller{}
	for _, mac := range macs {
		found[mac] = s.controller
	}
	if s.during != nil {
		s.during()
	}
	if s.err != nil {
		return nil, s.err
	}
	return found, nil
}

func newTestCache(t *testing.T, s *source) *cache {
	t.Helper()
	cfg := testConfig()
	c, err := newCache(&cfg, s.load, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return c
}

func (c *cache) mustGet(t *testing.T) *controller {
	t.Helper()
	found, err := c.get(t.Context(), mac)
	require.NoError(t, err)
	return found
}

// age makes the entry older, instead of waiting.
func (c *cache) age(t *testing.T, by time.Duration) {
	t.Helper()
	e, ok := c.entries.Get(mac)
	require.True(t, ok)
	e.loaded = e.loaded.Add(-by)
	c.entries.Add(mac, e)
	c.away.Store(c.away.Load() - int64(by))
}

func TestCacheLifetimes(t *testing.T) {
	t.Parallel()
	known := &controller{id: 7}
	for name, test := range map[string]struct {
		controller *controller
		lifetime   time.Duration
	}{
		"known":   {known, 600 * time.Second},
		"unknown": {nil, 30 * time.Second},
	} {
		s := &source{controller: test.controller}
		c := newTestCache(t, s)
		for range 3 {
			assert.Equal(t, test.controller, c.mustGet(t), name)
		}
		assert.Equal(t, 1, s.reads, name)
		c.age(t, test.lifetime-20*time.Second)
		c.mustGet(t)
		assert.Equal(t, 1, s.reads, name)
		c.age(t, 20*time.Second)
		s.controller = &controller{id: 8}
		assert.EqualValues(t, 8, c.mustGet(t).id, name)
		assert.Equal(t, 2, s.reads, name)
	}
}

// invalidations are the ways in which a change of the metadata reaches the cache.
var invalidations = map[string]func(*cache){
	"forget": func(c *cache) { c.forget(mac) },
	"expire": (*cache).expire,
}

func TestCacheIsInvalidated(t *testing.T) {
	t.Parallel()
	for name, invalidate := range invalidations {
		s := &source{controller: &controller{id: 7}}
		c := newTestCache(t, s)
		c.mustGet(t)
		s.controller = &controller{id: 8}
		assert.EqualValues(t, 7, c.mustGet(t).id, "the control")
		invalidate(c)
		assert.EqualValues(t, 8, c.mustGet(t).id, name)
		c.mustGet(t)
		assert.Equal(t, 2, s.reads, name)
	}
	s := &source{controller: &controller{id: 7}}
	c := newTestCache(t, s)
	c.mustGet(t)
	c.forget("02f200000001")
	c.mustGet(t)
	assert.Equal(t, 1, s.reads, "another controller's change")
}

// TestReadBeforeInvalidation: the metadata change while they are being read. The old ones are
// used for that message, and for no later one.
func TestReadBeforeInvalidation(t *testing.T) {
	t.Parallel()
	s := &source{controller: &controller{id: 7}}
	c := newTestCache(t, s)
	s.during = func() {
		s.during, s.controller = nil, &controller{id: 8}
		c.forget(mac)
	}
	assert.EqualValues(t, 7, c.mustGet(t).id)
	assert.EqualValues(t, 8, c.mustGet(t).id)
	c.mustGet(t)
	assert.Equal(t, 2, s.reads, "the control: what is read undisturbed is stored")
}

func TestOutageUsesWhatIsKnown(t *testing.T) {
	t.Parallel()
	s := &source{controller: &controller{id: 7}}
	c := newTestCache(t, s)
	c.mustGet(t)
	s.err = errors.New("away")
	c.expire()
	for range 3 {
		assert.EqualValues(t, 7, c.mustGet(t).id)
	}
	assert.Equal(t, 2, s.reads, "it does not ask for every message")
	c.age(t, 30*time.Second)
	s.err, s.controller = nil, &controller{id: 8}
	assert.EqualValues(t, 8, c.mustGet(t).id, "it asks again soon")
}

// TestOutageDelaysTheFleetOnce: the metadata of a whole fleet are due while the database does not
// respond. Not every controller waits for it.
func TestOutageDelaysTheFleetOnce(t *testing.T) {
	t.Parallel()
	s := &source{controller: &controller{id: 7}}
	c := newTestCache(t, s)
	fleet := []topic.MAC{mac, "02f200000001", "02f200000002"}
	get := func(want int32) {
		for _, mac := range fleet {
			found, err := c.get(t.Context(), mac)
			require.NoError(t, err)
			assert.Equal(t, want, found.id)
		}
	}
	get(7)
	s.err = errors.New("away")
	c.expire()
	get(7)
	assert.Equal(t, len(fleet)+1, s.reads)
	s.err, s.controller = nil, &controller{id: 8}
	c.expire() // it listens again
	get(8)
}

// TestInvalidationDuringOutage: a change is announced while the query fails.
func TestInvalidationDuringOutage(t *testing.T) {
	t.Parallel()
	for name, invalidate := range invalidations {
		s := &source{controller: &controller{id: 7}}
		c := newTestCache(t, s)
		c.mustGet(t)
		c.age(t, time.Hour)
		s.err, s.during = errors.New("away"), func() { invalidate(c) }
		assert.EqualValues(t, 7, c.mustGet(t).id, name)
		s.err, s.during, s.controller = nil, nil, &controller{id: 8}
		assert.EqualValues(t, 8, c.mustGet(t).id, name)
	}
}

// TestOutageFailsAtOnce: for unknown controllers no message waits for a database that is away,
// and the controllers are not cached as unknown.
func TestOutageFailsAtOnce(t *testing.T) {
	t.Parallel()
	s := &source{err: errors.New("away")}
	c := newTestCache(t, s)
	for _, mac := range []topic.MAC{mac, "02f200000001", mac} {
		_, err := c.get(t.Context(), mac)
		require.Error(t, err)
	}
	assert.Equal(t, 1, s.reads)
	assert.Zero(t, c.entries.Len())

	s.err, s.controller = nil, &controller{id: 7}
	c.away.Store(0)
	assert.EqualValues(t, 7, c.mustGet(t).id, "the control: it ends with the outage")
}

// TestQueryRefusedForOneController: PostgreSQL refuses the query for one controller. The next one is read
// nevertheless.
func TestQueryRefusedForOneController(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err   error
		reads int
	}{
		"raised by a trigger":   {&pgconn.PgError{Code: "P0001"}, 2},
		"a row of another type": {pgx.ScanArgError{Err: errors.New("1.5")}, 2},
		"no privilege":          {&pgconn.PgError{Code: "42501"}, 2},
		"no resources":          {&pgconn.PgError{Code: "53300"}, 1},
		"a stop":                {&pgconn.PgError{Code: "57P01"}, 1},
		"a broken connection":   {io.ErrUnexpectedEOF, 1},
		"a time-out":            {context.DeadlineExceeded, 1},
	} {
		s := &source{err: fmt.Errorf("reading: %w", test.err)}
		c := newTestCache(t, s)
		for _, mac := range []topic.MAC{mac, "02f200000001"} {
			_, err := c.get(t.Context(), mac)
			require.Error(t, err, name)
		}
		assert.Equal(t, test.reads, s.reads, name)
	}
}

// TestReadAhead reads what is due of some controllers with one query, and nothing that get
// would not read.
func TestReadAhead(t *testing.T) {
	t.Parallel()
	const other, third topic.MAC = "02f200000001", "02f200000002"
	s := &source{controller: &controller{id: 7}}
	c := newTestCache(t, s)
	c.readAhead(t.Context(), []topic.MAC{mac})
	require.Zero(t, s.reads, "get reads one")
	c.readAhead(t.Context(), []topic.MAC{mac, other})
	c.readAhead(t.Context(), []topic.MAC{mac, other})
	require.Equal(t, 1, s.reads)
	c.mustGet(t)
	require.Equal(t, 1, s.reads)

	s.err = errors.New("one controller's rows")
	c.readAhead(t.Context(), []topic.MAC{third, "02f200000003"})
	require.Equal(t, 2, s.reads)
	c.readAhead(t.Context(), []topic.MAC{third, "02f200000003"})
	require.Equal(t, 2, s.reads, "PostgreSQL does not respond: no further query for a while")
	_, err := c.get(t.Context(), third)
	require.ErrorIs(t, err, errAway)

	s.err = nil
	c.forget("")
	s.during = func() { c.forget(third) }
	c.readAhead(t.Context(), []topic.MAC{third, "02f200000003"})
	assert.False(t, c.has(third), "read before a change, so not kept")
}
