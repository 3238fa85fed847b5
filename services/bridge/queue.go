package bridge

import (
	"context"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// overhead is more than what a message takes beside its payload and topic, until it
// is stored.
const overhead = 1024

// arrival is a message as it came from the broker.
type arrival struct {
	mqtt.Message
	at      time.Time
	session *session
	size    int64  // memory that it counts for
	digest  uint64 // for the window
	topic   topic.Topic
}

// queue holds what has arrived and is not yet stored, bounded in bytes: all that the
// broker sends before the first acknowledgement, so that the handler does not block
// paho's loop. Only where JetStream is away and the connection breaks again and
// again do the same messages, sent anew, fill it, or messages of QoS 0: then the
// handler waits.
type queue struct {
	items  chan arrival
	room   *semaphore.Weighted
	limit  int64
	bytes  prometheus.Gauge
	open   context.Context //nolint:containedctx // it ends when nobody takes any more
	cancel context.CancelFunc
}

func newQueue(messages int, payload int64, gauge prometheus.Gauge) *queue {
	limit := payload + int64(messages)*overhead
	q := &queue{items: make(chan arrival, limit/overhead), room: semaphore.NewWeighted(limit), limit: limit, bytes: gauge}
	q.open, q.cancel = context.WithCancel(context.Background())
	return q
}

// put waits for room. It returns false when the queue is closed.
func (q *queue) put(a arrival) bool {
	a.size = min(int64(len(a.Payload())+len(a.Topic())+overhead), q.limit)
	if q.room.Acquire(q.open, a.size) != nil {
		return false
	}
	q.bytes.Add(float64(a.size))
	q.items <- a // there is room, since nothing counts for less than overhead
	return true
}

func (q *queue) release(size int64) {
	q.room.Release(size)
	q.bytes.Sub(float64(size))
}

func (q *queue) close() { q.cancel() }

func (q *queue) closed() <-chan struct{} { return q.open.Done() }
