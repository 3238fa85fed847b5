package health

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// readyTimeout is longer than a service itself takes, which is at most 3 s.
const readyTimeout = 4 * time.Second

// Look asks the running services, the streams and their consumers. It reads no
// message and needs no rights but those of NATS user health. Rates are zero: they
// take two looks (Rates).
func Look(ctx context.Context, js jetstream.JetStream) (*MeshStatus, error) {
	each, err := collect(ctx, js.Conn())
	if err != nil {
		return nil, err
	}
	found, instances := sums(each)
	s := &MeshStatus{Time: time.Now().UTC(), Ready: true, Ledger: ledgerOf(found)}
	for _, stage := range stages {
		own := found[stage.name]
		line := ServiceStatus{
			Stage: stage.name, Instances: instances[stage.name],
			Received: own[stage.counter], Dead: own[deadLetters(stage.name)], dead: map[string]float64{},
		}
		for id, one := range each[stage.name] {
			line.dead[id] = one[deadLetters(stage.name)]
		}
		line.Ready, line.Cause = askReady(ctx, js.Conn(), stage.name)
		if err := line.position(ctx, js, stage.stream); err != nil {
			return nil, err
		}
		s.Stages = append(s.Stages, line)
		s.Ready = s.Ready && line.Ready
	}
	if s.Streams, err = lookAtStreams(ctx, js); err != nil {
		return nil, err
	}
	for _, keeper := range each["keeper"] { // each tells of the same streams
		for i := range s.Streams {
			one := &s.Streams[i]
			one.FullIn = keeper[probe.FigureOf("f2mesh_keeper_seconds_to_full", one.Stream)]
			one.Room = keeper[probe.FigureOf("f2mesh_keeper_seconds_of_room", one.Stream)]
		}
	}
	registrar := found["registrar"]
	for _, one := range each["registrar"] { // each tells of the same broker
		if n, told := one["f2mesh_registrar_broker_messages_dropped_total"]; told {
			s.Dropped, s.counted = max(s.Dropped, n), true
		}
	}
	if at := registrar["f2mesh_registrar_crl_next_update_timestamp_seconds"]; at > 0 && instances["registrar"] == 1 {
		s.CRLEnds = time.Unix(int64(at), 0).UTC()
	}
	if s.Secrets, err = askSecrets(ctx, js.Conn(), instances); err != nil {
		return nil, err
	}
	return s, s.askAlarms(ctx, js.Conn(), instances)
}

// shortestSample is the shortest time that a rate is taken over. A stage counts when it is asked,
// which on a busy machine can be much later than the time of the look.
const shortestSample = 500 * time.Millisecond

// Rates fills in what each stage took a second since an earlier look. A service
// that started anew meanwhile counts from zero. If the looks are too close for a rate, the
// earlier one stands.
func (s *MeshStatus) Rates(earlier *MeshStatus) {
	elapsed := s.Time.Sub(earlier.Time)
	for i := range s.Stages {
		now := &s.Stages[i]
		switch before := earlier.stage(now.Stage); {
		case before == nil:
		case elapsed < shortestSample:
			now.Rate = before.Rate
		default:
			now.Rate = max(0, now.Received-before.Received) / elapsed.Seconds()
		}
	}
}

func (s *MeshStatus) stage(name string) *ServiceStatus {
	i := slices.IndexFunc(s.Stages, func(one ServiceStatus) bool { return one.Stage == name })
	if i < 0 {
		return nil
	}
	return &s.Stages[i]
}

func deadLetters(stage string) string { return "f2mesh_" + stage + "_dead_letters_total" }

// collect asks all services for their figures, by name and instance.
func collect(ctx context.Context, nc *nats.Conn) (each map[string]map[string]figures, err error) {
	answers, err := probe.AskServices(ctx, nc, "STATS", probe.FirstAnswer)
	if err != nil {
		return nil, fmt.Errorf("asking the services: %w", err)
	}
	each = map[string]map[string]figures{}
	for name, instances := range answers {
		each[name] = map[string]figures{}
		for _, data := range instances {
			if o, ok := probe.ParseStats(data); ok && o.Name == name {
				each[name][o.ID] = o.Figures
			}
		}
	}
	return each, nil
}

// sums adds up the figures of the instances of one name, and counts these.
func sums(each map[string]map[string]figures) (found map[string]figures, instances map[string]int) {
	found, instances = map[string]figures{}, map[string]int{}
	for service, all := range each {
		instances[service], found[service] = len(all), figures{}
		for _, one := range all {
			for name, v := range one {
				found[service][name] += v
			}
		}
	}
	return found, instances
}

func ledgerOf(found map[string]figures) Ledger {
	l := Ledger{
		Received: found["bridge"]["f2mesh_bridge_messages_received_total"],
		Stored:   found["bridge"]["f2mesh_bridge_messages_stored_total"],
		Decoded:  found["decoder"]["f2mesh_decoder_messages_decoded_total"],
		Rows:     found["writer"]["f2mesh_writer_rows_written_total"],
	}
	for _, name := range []string{stream.StageBridge, stream.StageDecoder, stream.StageWriter} {
		l.Dead += found[name][deadLetters(name)]
	}
	return l
}

func askReady(ctx context.Context, nc *nats.Conn, stage string) (ready bool, cause string) {
	bounded, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	m, err := nc.RequestWithContext(bounded, probe.ReadySubject(stage), nil)
	if err != nil {
		return false, "does not respond: is it running?"
	}
	var r probe.Readiness
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return false, "returned an invalid response"
	}
	return r.Ready, r.Cause
}

// position asks where the stage stands in the stream that it reads. Before it has
// started for the first time it stands nowhere.
func (s *ServiceStatus) position(ctx context.Context, js jetstream.JetStream, name string) error {
	if name == "" {
		return nil
	}
	info, err := stream.FindConsumer(ctx, js, name, s.Stage)
	if err != nil || info == nil {
		return err
	}
	s.Lag = info.NumPending + uint64(max(0, info.NumAckPending))
	s.Redeliver, s.done = info.NumRedelivered, info.AckFloor.Consumer
	return nil
}

func lookAtStreams(ctx context.Context, js jetstream.JetStream) ([]StreamFill, error) {
	var all []StreamFill
	for _, s := range streams {
		info, err := streamInfo(ctx, js, s.name, s.reader != "" || s.name == stream.Audit)
		if err != nil {
			return nil, err
		}
		if info == nil {
			continue // not there before setup has made it
		}
		one := StreamFill{
			Stream: s.name, Messages: info.State.Msgs, Bytes: info.State.Bytes, MaxBytes: info.Config.MaxBytes,
			Backlog: info.State.Bytes, trimmed: s.reader != "", ring: s.ring,
			Lost: lostBytes(&info.State), created: info.Created, last: info.State.LastSeq,
		}
		if info.Cluster != nil {
			one.Leader, one.Behind = info.Cluster.Leader, stream.Behind(info)
		}
		if one.trimmed {
			if one.Backlog, err = backlog(ctx, js, s.name, s.reader, &info.State); err != nil {
				return nil, err
			}
		}
		all = append(all, one)
	}
	return all, nil
}

// backlog is how many bytes of a stream its reader has yet to acknowledge: all, if there
// is no reader.
func backlog(ctx context.Context, js jetstream.JetStream, name, reader string, state *jetstream.StreamState) (uint64, error) {
	if state.Msgs == 0 {
		return 0, nil
	}
	info, err := stream.FindConsumer(ctx, js, name, reader)
	if err != nil || info == nil {
		return state.Bytes, err
	}
	waiting := min(state.LastSeq-min(info.AckFloor.Stream, state.LastSeq), state.Msgs)
	if info.NumPending == 0 && info.NumAckPending == 0 {
		waiting = 0
	}
	return uint64(float64(waiting) * float64(state.Bytes) / float64(state.Msgs)), nil
}

// Watchers are the services that look for alarms.
func Watchers() []string { return []string{service, "keeper", "registrar", "writer", "alarm"} }

// askAlarms asks every instance of the watchers what is raised. A downgraded secret
// is an alarm of the service that has it, which does not know since when.
func (s *MeshStatus) askAlarms(ctx context.Context, nc *nats.Conn, instances map[string]int) error {
	s.Alarms, s.Watching = []alarm.Alarm{}, []string{}
	for _, name := range Watchers() {
		if instances[name] == 0 {
			continue
		}
		answers, err := probe.Ask(ctx, nc, alarm.ListSubject(name), instances[name], probe.FirstAnswer)
		if err != nil {
			return fmt.Errorf("asking %s for its alarms: %w", name, err)
		}
		for _, data := range answers {
			var own alarm.Listing
			if err := json.Unmarshal(data, &own); err != nil {
				return fmt.Errorf("reading the alarms of %s: %w", name, err)
			}
			s.Alarms, s.AlarmsRaised = append(s.Alarms, own.Alarms...), s.AlarmsRaised+own.Total
		}
		if len(answers) > 0 {
			s.Watching = append(s.Watching, name)
		}
	}
	for _, one := range s.Secrets {
		if one.Downgraded {
			s.AlarmsRaised++
			s.Alarms = append(s.Alarms, alarm.Alarm{
				Kind: alarm.SecretDowngraded, Service: one.Service, Subject: one.Name, Raised: true, Detail: one.Problem,
			})
		}
	}
	slices.SortStableFunc(s.Alarms, alarm.Youngest)
	return nil
}

// askSecrets asks every instance where its secrets are from.
func askSecrets(ctx context.Context, nc *nats.Conn, instances map[string]int) ([]Secret, error) {
	all := []Secret{}
	for service, n := range instances {
		answers, err := probe.Ask(ctx, nc, probe.SecretsSubject(service), n, probe.FirstAnswer)
		if err != nil {
			return nil, fmt.Errorf("asking %s for its secrets: %w", service, err)
		}
		for _, data := range answers {
			var own []secret.Status
			if err := json.Unmarshal(data, &own); err != nil {
				return nil, fmt.Errorf("reading the secrets of %s: %w", service, err)
			}
			for _, one := range own {
				all = append(all, Secret{service, one})
			}
		}
	}
	slices.SortStableFunc(all, func(x, y Secret) int {
		return strings.Compare(x.Service+" "+x.Name, y.Service+" "+y.Name)
	})
	return all, nil
}

// Observe looks twice, sample apart, so that the stages have rates.
func Observe(ctx context.Context, js jetstream.JetStream, sample time.Duration) (*MeshStatus, error) {
	before, err := Look(ctx, js)
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(sample):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	now, err := Look(ctx, js)
	if err != nil {
		return nil, err
	}
	now.Rates(before)
	return now, nil
}
