package deadletter

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Group is the letters of one stage, reason and controller.
type Group struct {
	Stage  string    `json:"stage"`
	Reason string    `json:"reason"`
	MAC    topic.MAC `json:"mac,omitempty"` // empty: unknown
	Kept   uint64    `json:"kept"`
	// Total is how many there have been, those included that are no longer kept.
	Total uint64    `json:"total"`
	First time.Time `json:"first,omitzero"` // of the kept
	Last  time.Time `json:"last,omitzero"`
	// Detail is that of the last one.
	Detail string `json:"detail,omitempty"`
}

// Groups lists the letters that f chooses by stage, reason and controller.
func (f Filter) Groups(ctx context.Context, js jetstream.JetStream) ([]Group, error) {
	f.HeadersOnly = true
	groups := make(map[string]*Group)
	err := f.Read(ctx, js, func(s Stored) error {
		subject := s.Subject()
		g := groups[subject]
		if g == nil {
			g = &Group{Stage: s.Stage, Reason: s.Reason, MAC: s.MAC, First: s.Stored}
			groups[subject] = g
		}
		g.Total = s.Count
		if s.Removed {
			return nil
		}
		if g.Kept == 0 {
			g.First = s.Stored
		}
		g.Kept++
		g.Last, g.Detail = s.Stored, s.Detail
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := make([]Group, 0, len(groups))
	for _, g := range groups {
		all = append(all, *g)
	}
	slices.SortFunc(all, func(x, y Group) int {
		return cmp.Or(cmp.Compare(x.Stage, y.Stage), cmp.Compare(x.Reason, y.Reason), cmp.Compare(x.MAC, y.MAC))
	})
	return all, nil
}
