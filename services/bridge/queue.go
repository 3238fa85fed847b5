package bridge

import (
	"context"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// overhead is an upper bound of a message's memory, without payload and topic, until it is
// stored.
const overhead = 1024

// arrival is a message from the broker.
type arrival struct {
	mqtt.Message
	at      time.Time
	session *session
	size    int64  // memory, as the queue counts it
	digest  uint64 // for the window
	topic   topic.Topic
}

// queue holds messages that have arrived and are not stored yet. Its limit in bytes is as
// large as what the broker sends before the first acknowledgement, so that the handler does
// not block paho's loop. The handler waits only if repeated deliveries fill the queue, when
// JetStream is away and the connection is lost again and again, or messages with QoS 0.
type queue struct {
	items  chan arrival
	room   *semaphore.Weighted
	limit  int64
	bytes  prometheus.Gauge
	open   context.Context //nolint:containedctx // ends when the queue is closed
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
	q.items <- a // never blocks: every message counts for overhead at least
	return true
}

func (q *queue) release(size int64) {
	q.room.Release(size)
	q.bytes.Sub(float64(size))
}

func (q *queue) close() { q.cancel() }

func (q *queue) closed() <-chan struct{} { return q.open.Done() }
