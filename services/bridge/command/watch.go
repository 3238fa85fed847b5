package command

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// watches are the commands that wait for a report of their component. It is safe for
// concurrent use.
type watches struct {
	count  atomic.Int64 // of all watches, so that a message costs nothing while there is none
	mu     sync.Mutex
	places map[topic.Topic][]*watch
	silent map[topic.Topic]bool // components that did not report their last command
}

// watch is one command that waits for a report.
type watch struct {
	place    topic.Topic
	expected expectation
	reported chan []byte // has room for one; the state
}

func newWatches() *watches {
	return &watches{places: map[topic.Topic][]*watch{}, silent: map[topic.Topic]bool{}}
}

// add adds a watch, behind the earlier ones of the component.
func (w *watches) add(place topic.Topic, e expectation) *watch {
	one := &watch{place: place, expected: e, reported: make(chan []byte, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.places[place] = append(w.places[place], one)
	w.count.Add(1)
	return one
}

// waits reports whether a command waits for a report of the component.
func (w *watches) waits(place topic.Topic) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.places[place]) > 0
}

// remove ends a watch. It may be called again.
func (w *watches) remove(one *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(one)
}

// drop removes a watch. The caller holds mu.
func (w *watches) drop(one *watch) {
	list := w.places[one.place]
	i := slices.Index(list, one)
	if i < 0 {
		return
	}
	w.count.Add(-1)
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(w.places, one.place)
	} else {
		w.places[one.place] = list
	}
}

// report passes a controller's message to the first watch that expects it: controllers
// carry out commands in order.
func (w *watches) report(t topic.Topic, body []byte) {
	if w.count.Load() == 0 {
		return
	}
	place := component(t)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.places[place] {
		if one.expected.met(t.Root, t.Component.Kind, body) {
			one.reported <- state(t.Component.Kind, body)
			w.drop(one)
			delete(w.silent, place)
			return
		}
	}
}

// isSilent reports whether the component did not report its last command.
func (w *watches) isSilent(place topic.Topic) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.silent[place]
}

// noteSilent records that the component did not report a command.
func (w *watches) noteSilent(place topic.Topic) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent[place] = true
}
