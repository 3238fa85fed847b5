package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
)

// readyEndpoint is a service's first endpoint. Its statistics have the service's figures.
const readyEndpoint = "ready"

// MicroPrefix comes before a service's name in `nats micro`.
const MicroPrefix = "f2mesh-"

// ReadySubject is where a service replies with its Readiness, in JSON.
func ReadySubject(name string) string { return "f2.ready." + name }

// SecretsSubject is where each instance of a service replies with the sources of its secrets: a
// JSON list of secret.Status.
func SecretsSubject(name string) string { return "f2.secrets." + name }

// Refusal returns the header of a reply that has an error instead of a result, as package micro
// has it.
func Refusal(code int, problem error) nats.Header {
	return nats.Header{micro.ErrorCodeHeader: {strconv.Itoa(code)}, micro.ErrorHeader: {strings.ReplaceAll(problem.Error(), "\n", " ")}}
}

// Readiness is the reply on ReadySubject.
type Readiness struct {
	Ready bool   `json:"ready"`
	Cause string `json:"cause,omitempty"`
}

// Announce makes the service reply to `nats micro ls|info|stats|ping`, with its metrics as the
// data of its endpoint "ready". Its other endpoints are "secrets" and "alarms". Stop of the
// result ends all.
func Announce(nc *nats.Conn, s Service) (micro.Service, error) {
	svc, err := micro.AddService(nc, micro.Config{
		Name: MicroPrefix + s.Name, Version: s.Version, Description: s.Description,
		StatsHandler: func(e *micro.Endpoint) any {
			if e.Name != readyEndpoint {
				return nil
			}
			figures, err := Figures(s.Gatherer)
			if err != nil {
				return map[string]string{"error": err.Error()}
			}
			return figures
		},
	})
	if err != nil {
		return nil, fmt.Errorf("announcing %s: %w", s.Name, err)
	}
	answer := func(r micro.Request) {
		ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
		defer cancel()
		out := Readiness{Ready: true}
		if err := s.Ready(ctx); err != nil {
			out = Readiness{Cause: err.Error()}
		}
		_ = r.RespondJSON(out)
	}
	if err := svc.AddEndpoint(readyEndpoint, micro.HandlerFunc(answer), micro.WithEndpointSubject(ReadySubject(s.Name))); err != nil {
		return nil, fmt.Errorf("announcing %s: %w", s.Name, err)
	}
	if s.Secrets != nil {
		err = list(svc, "secrets", SecretsSubject(s.Name), func() any { return s.Secrets() })
	}
	if s.Alarms != nil && err == nil {
		err = list(svc, "alarms", alarm.ListSubject(s.Name), func() any { return s.Alarms() })
	}
	if err != nil {
		return nil, fmt.Errorf("announcing %s: %w", s.Name, err)
	}
	return svc, nil
}

// list adds an endpoint that replies with a list. It has no queue group, since a request, such
// as that of a rotation, must reach every instance.
func list(svc micro.Service, name, subject string, what func() any) error {
	answer := micro.HandlerFunc(func(r micro.Request) { _ = r.RespondJSON(what()) })
	return svc.AddEndpoint(name, answer, micro.WithEndpointSubject(subject), micro.WithEndpointQueueGroupDisabled())
}

// Figures are the counters and gauges of a registry, by name. Those with labels are summed.
// Those of a stream are also there separately, under FigureOf.
func Figures(g prometheus.Gatherer) (map[string]float64, error) {
	families, err := g.Gather()
	if err != nil {
		return nil, err
	}
	figures := make(map[string]float64, len(families))
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var value float64
			switch {
			case m.GetCounter() != nil:
				value = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				value = m.GetGauge().GetValue()
			default:
				continue
			}
			figures[f.GetName()] += value
			if labels := m.GetLabel(); len(labels) == 1 && labels[0].GetName() == "stream" {
				figures[FigureOf(f.GetName(), labels[0].GetValue())] = value
			}
		}
	}
	return figures, nil
}

// FigureOf is the name of a stream's own figure.
func FigureOf(name, stream string) string { return name + "/" + stream }

// Observed is one service as its `nats micro` statistics show it.
type Observed struct {
	Name    string // such as bridge
	ID      string
	Figures map[string]float64
}

// ParseStats parses a reply on $SRV.STATS. ok is false for services that are not f2mesh's.
func ParseStats(data []byte) (o Observed, ok bool) {
	var stats micro.Stats
	if json.Unmarshal(data, &stats) != nil || len(stats.Endpoints) == 0 {
		return o, false
	}
	name, ours := strings.CutPrefix(stats.Name, MicroPrefix)
	if !ours || name == "" {
		return o, false
	}
	o.Name, o.ID = name, stats.ID
	return o, json.Unmarshal(stats.Endpoints[0].Data, &o.Figures) == nil
}
