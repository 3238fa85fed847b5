package alarm

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	board "github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
)

// reporters are the services whose alarms become entries of ALARM.
func reporters() []string { return []string{"health", "keeper", "registrar", "writer", serviceName} }

// listEvery is how often the services are asked which alarms are raised: a message may be lost.
const listEvery = 30 * time.Second

// listing is what a service says is raised.
type listing struct {
	service string
	raised  []board.Alarm
	at      time.Time // before it was asked
}

// hear passes on what services publish and list, until ctx ends.
func (s *Server) hear(ctx context.Context) error {
	nc := s.streams.JetStream().Conn()
	subscription, err := nc.ChanSubscribe("f2.alarm.>", s.reports)
	if err != nil {
		return err
	}
	defer func() { _ = subscription.Unsubscribe() }()
	if err := s.answer(ctx, nc); err != nil {
		return err
	}
	if err := s.takeChanges(ctx, nc); err != nil {
		return err
	}
	ticker := time.NewTicker(listEvery)
	defer ticker.Stop()
	for {
		s.board.Resend()
		for _, service := range reporters() {
			if l, ok := ask(ctx, nc, service); ok {
				select {
				case s.listings <- l:
				case <-ctx.Done():
					return nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// answer tests receivers on request.
func (s *Server) answer(ctx context.Context, nc *nats.Conn) error {
	_, err := nc.Subscribe(TestSubject, func(m *nats.Msg) {
		go func() {
			reply := "delivered"
			if err := s.test(ctx, string(m.Data)); err != nil {
				reply = err.Error()
			}
			_ = m.Respond([]byte(reply)) // who asked may be gone
		}()
	})
	return err
}

// ask returns what all instances of a service list, if one responds and lists all.
func ask(ctx context.Context, nc *nats.Conn, service string) (l listing, ok bool) {
	l = listing{service: service, at: time.Now().UTC()}
	answers, err := probe.Ask(ctx, nc, board.ListSubject(service), 0, probe.FirstAnswer)
	if err != nil || len(answers) == 0 {
		return l, false
	}
	for _, data := range answers {
		var one board.Listing
		if json.Unmarshal(data, &one) != nil || one.Total > len(one.Alarms) {
			return l, false
		}
		l.raised = append(l.raised, one.Alarms...)
	}
	return l, true
}

// reported adds what follows from a service's message. A downgraded secret is left out: no
// service lists it, so nobody could say that it is over.
func (s *Server) reported(m *nats.Msg, now time.Time, changes map[string][]rewrite) {
	var a board.Alarm
	if json.Unmarshal(m.Data, &a) == nil && m.Subject == board.Subject(a.Service, a.Kind) {
		report(&a, now, changes)
	}
}

func report(a *board.Alarm, now time.Time, changes map[string][]rewrite) {
	if a.Kind == board.SecretDowngraded {
		return
	}
	n := &alert.Notice{
		Identity: alert.Identity{Service: a.Service, Kind: a.Kind, About: a.Subject}, Severity: alert.Warning, Detail: a.Detail, Since: a.Since, Raised: a.Raised,
	}
	id := n.Identity.ID()
	changes[id] = append(changes[id], func(e alert.Entry) []alert.Entry { return e.Follow(n, now) })
}

// listed adds what follows from a listing: what is raised, and the end of what is not any more.
func (s *Server) listed(l *listing, changes map[string][]rewrite) {
	raised := map[string]bool{}
	for i := range l.raised {
		a := &l.raised[i]
		if a.Service == l.service && a.Raised {
			report(a, l.at, changes)
			place := alert.Identity{Service: a.Service, Kind: a.Kind, About: a.Subject}
			raised[place.ID()] = true
		}
	}
	gone := s.store.ids(func(e *alert.Entry) bool {
		return e.Active() && e.Service == l.service && e.RaisedAt.Before(l.at) && !raised[e.ID()]
	})
	for _, id := range gone {
		n := &alert.Notice{}
		changes[id] = append(changes[id], func(e alert.Entry) []alert.Entry { return e.Follow(n, l.at) })
	}
}
