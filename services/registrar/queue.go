package registrar

import (
	"context"
	"sync"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// call is one of Register. Its results and err are there once done is closed.
type call struct {
	ctx      context.Context //nolint:containedctx // whose caller may give up while others' calls of the batch go on
	origin   Origin
	requests []Request
	results  []RequestResult
	err      error
	done     chan struct{}
}

// queue gathers calls while earlier ones are under way.
type queue struct {
	mu      sync.Mutex // guards the fields below
	calls   []*call
	working bool
}

// join adds a call, and starts work on a goroutine unless that runs already.
func (q *queue) join(w *call, work func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = append(q.calls, w)
	if !q.working {
		q.working = true
		go work()
	}
}

// take answers the calls to be done together: the oldest, and those behind it that
// are not about the same devices, up to the size of a batch. With none left the work
// is over.
func (q *queue) take() []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	var batch, later []*call
	named := map[topic.MAC]bool{}
	size := 0
	for _, w := range q.calls {
		if len(batch) > 0 && (size+len(w.requests) > importBatch || w.names(named)) {
			later = append(later, w)
			continue
		}
		batch, size = append(batch, w), size+len(w.requests)
		for i := range w.requests {
			named[w.requests[i].MAC] = true
		}
	}
	q.calls, q.working = later, len(batch) > 0
	return batch
}

func (w *call) names(macs map[topic.MAC]bool) bool {
	for i := range w.requests {
		if macs[w.requests[i].MAC] {
			return true
		}
	}
	return false
}
