package decoder

import (
	"hash/maphash"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// mostMembers is how many members of one controller get a letter on one day; the others are
// only counted.
const mostMembers = 32

// memberMemory remembers which members that match no data point have had their letter today,
// for the controllers that sent last. It is safe for concurrent use. A nil one remembers
// nothing.
type memberMemory struct {
	seed        maphash.Seed
	mu          sync.Mutex
	controllers *lru.Cache[topic.MAC, *namedMembers]
}

// namedMembers are the members of one controller on one day: a hash of the name, and the
// message whose letter names it.
type namedMembers struct {
	day     int64
	letters map[uint64]event.ID
}

// newMemberMemory returns a memory for a number of controllers.
func newMemberMemory(controllers int) *memberMemory {
	cache, err := lru.New[topic.MAC, *namedMembers](controllers)
	if err != nil {
		panic(err) // the configuration has been checked
	}
	return &memberMemory{seed: maphash.MakeSeed(), controllers: cache}
}

// first reports whether the message is the first of its day, in UTC, with the member,
// ignoring case. It returns true again if the same message is delivered again: its letter may
// not have been stored.
func (n *memberMemory) first(mac topic.MAC, member string, id event.ID, received time.Time) bool {
	if n == nil {
		return true
	}
	hash := maphash.String(n.seed, strings.ToLower(member))
	day := received.Unix() / (24 * 60 * 60)
	n.mu.Lock()
	defer n.mu.Unlock()
	named, ok := n.controllers.Get(mac)
	if !ok || named.day != day {
		named = &namedMembers{day: day, letters: map[uint64]event.ID{}}
		n.controllers.Add(mac, named)
	}
	if letter, ok := named.letters[hash]; ok {
		return letter == id
	}
	if len(named.letters) >= mostMembers {
		return false
	}
	named.letters[hash] = id
	return true
}
