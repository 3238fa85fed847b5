package console

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// auditEntry is a message of AUDIT.
type auditEntry struct {
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"`
	Action  string    `json:"action"`
	MAC     topic.MAC `json:"mac"`
	Serial  string    `json:"serial"`
	Detail  string    `json:"detail"`
	Address string    `json:"address"`
}

// trail reads the last entries of a subject of AUDIT, the newest first.
func (c *Console) trail(ctx context.Context, subject string, limit int) ([]auditEntry, error) {
	all := []auditEntry{}
	err := tail(ctx, c.from.Streams.JetStream(), stream.Audit, subject, maxScanned, func(m *jetstream.RawStreamMsg) error {
		var e auditEntry
		if json.Unmarshal(m.Data, &e) == nil {
			all = append(all, e)
		}
		return nil
	})
	slices.Reverse(all)
	return all[:min(len(all), limit)], err
}

type auditPage struct {
	Query  string
	Action choices
	Shown  []auditEntry
	pager

	found []auditEntry
}

func (*auditPage) title() string { return "Audit trail" }

func (*auditPage) commands() []string {
	return []string{"f2mesh device log", "nats stream view AUDIT"}
}

func (p *auditPage) rows() [][]string {
	all := [][]string{{"time", "actor", "action", "mac", "serial", "detail", "address"}}
	for i := range p.found {
		e := &p.found[i]
		all = append(all, []string{stamp(e.Time), e.Actor, e.Action, string(e.MAC), e.Serial, e.Detail, e.Address})
	}
	return all
}

func (c *Console) serveAudit(w http.ResponseWriter, r *http.Request, s *session) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	all, err := c.trail(ctx, "f2.audit.>", maxScanned)
	if err != nil {
		c.unavailable(w, r, s, "The audit trail", err)
		return
	}
	p := &auditPage{Query: strings.TrimSpace(r.FormValue("q")), Action: choices{Name: "action", Label: "Action", Chosen: r.FormValue("action")}}
	for i := range all {
		if !slices.Contains(p.Action.All, all[i].Action) {
			p.Action.All = append(p.Action.All, all[i].Action)
		}
	}
	slices.Sort(p.Action.All)
	sought := strings.ToLower(p.Query)
	p.found = slices.DeleteFunc(all, func(e auditEntry) bool {
		return p.Action.Chosen != "" && e.Action != p.Action.Chosen || !contains(sought, e.Actor, string(e.MAC), e.Detail, e.Serial, e.Address)
	})
	if asCSV(w, r, "audit", p) {
		return
	}
	p.Shown, p.pager = paged(r, p.found)
	c.show(w, r, s, "audit", p)
}
