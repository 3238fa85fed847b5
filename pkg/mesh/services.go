package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

// Services asks the running services over NATS.
type Services struct{ *nats.Conn }

func (a Services) ask(ctx context.Context, subject string, instances int, wait time.Duration) ([][]byte, error) {
	return probe.Ask(ctx, a.Conn, subject, instances, wait)
}

// instances counts the running instances of services, by name.
func (a Services) instances(ctx context.Context) (map[string]int, error) {
	pings, err := probe.AskServices(ctx, a.Conn, "PING", probe.FirstAnswer)
	if err != nil {
		return nil, fmt.Errorf("looking for services: %w", err)
	}
	counts := map[string]int{}
	for name, all := range pings {
		counts[name] = len(all)
	}
	return counts, nil
}

// AllSecrets answers what every instance says of every secret.
func (a Services) AllSecrets(ctx context.Context) ([]SecretStatus, error) {
	counts, err := a.instances(ctx)
	if err != nil {
		return nil, err
	}
	var all []SecretStatus
	for service, n := range counts {
		statuses, err := a.SecretsOf(ctx, service, n)
		if err != nil {
			return nil, err
		}
		for _, s := range statuses {
			all = append(all, SecretStatus{Service: service, Status: s})
		}
	}
	slices.SortStableFunc(all, func(x, y SecretStatus) int {
		return strings.Compare(x.Service+" "+x.Name, y.Service+" "+y.Name)
	})
	return all, nil
}

// Status makes Services a rotation.Services.
func (a Services) Status(ctx context.Context, service, name string) ([]secret.Status, error) {
	counts, err := a.instances(ctx)
	if err != nil || counts[service] == 0 {
		return nil, err
	}
	all, err := a.SecretsOf(ctx, service, counts[service])
	return slices.DeleteFunc(all, func(s secret.Status) bool { return s.Name != name }), err
}

// SecretsOf asks the instances of one service, all of which must answer.
func (a Services) SecretsOf(ctx context.Context, service string, instances int) ([]secret.Status, error) {
	replies, err := a.ask(ctx, probe.SecretsSubject(service), instances, probe.FirstAnswer)
	if err != nil {
		return nil, fmt.Errorf("asking %s for its secrets: %w", service, err)
	}
	if len(replies) < instances {
		return nil, fmt.Errorf("asking %s for its secrets: %d of %d instances answer", service, len(replies), instances)
	}
	var all []secret.Status
	for _, data := range replies {
		var one []secret.Status
		if err := json.Unmarshal(data, &one); err != nil {
			return nil, fmt.Errorf("reading what %s says of its secrets: %w", service, err)
		}
		all = append(all, one...)
	}
	return all, nil
}

// figures asks the instances of one service for their counters and adds them up.
func (a Services) figures(ctx context.Context, service string, instances int) (map[string]float64, error) {
	replies, err := a.ask(ctx, micro.APIPrefix+".STATS."+probe.MicroPrefix+service, instances, probe.NextAnswer)
	if err != nil {
		return nil, err
	}
	if len(replies) < instances {
		return nil, fmt.Errorf("%d of %d instances of %s answer", len(replies), instances, service)
	}
	all := map[string]float64{}
	for _, data := range replies {
		o, ok := probe.ParseStats(data)
		if !ok {
			continue
		}
		for name, v := range o.Figures {
			all[name] += v
		}
	}
	return all, nil
}

// SecretStatus is one line of the screen: what one instance of a service says.
type SecretStatus struct {
	Service string `json:"service"` // "" for what only people and our own commands use
	secret.Status
	Age time.Duration `json:"age_ns"` // of the version, as far as it is known
}
