package alarm

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

const patience = 30 * time.Second

// rig is a NATS server, and alarm services with the rights that they have in a mesh.
type rig struct {
	tb       testing.TB
	server   *natsserver.Server
	operator *stream.Client
	file     string // of rules
	secrets  *secret.Store
	sequence uint64
}

func newRig(tb testing.TB, rules string) *rig {
	tb.Helper()
	server := natsservertest.Start(tb, natsservertest.Config(tb))
	operator := streamtest.Connect(tb, server, natsserver.Operator)
	_, err := operator.SetUp(tb.Context(), stream.Sizes{}, false)
	require.NoError(tb, err)
	r := &rig{tb: tb, server: server, operator: operator, file: filepath.Join(tb.TempDir(), "alarms.yaml")}
	r.secrets = secret.NewStore(secret.Chain{}, slog.New(slog.DiscardHandler))
	r.write(rules)
	return r
}

// write replaces the rules.
func (r *rig) write(rules string) {
	r.tb.Helper()
	temporary := r.file + ".new"
	require.NoError(r.tb, os.WriteFile(temporary, []byte(rules), 0o600))
	require.NoError(r.tb, os.Rename(temporary, r.file))
}

// start runs a service until stop is called, or the test ends.
func (r *rig) start() (s *Server, stop func()) {
	r.tb.Helper()
	streams := streamtest.Connect(r.tb, r.server, natsserver.Alarm)
	s, err := New(Config{Rules: r.file, GiveUp: time.Hour}, r.secrets, streams, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(r.tb, err)
	ctx, cancel := context.WithCancel(r.tb.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			natsservertest.Close(streams.JetStream().Conn()) // as a kill does
			cancel()
			if err := <-done; err != nil {
				r.tb.Logf("stopped: %v", err)
			}
		}
	}
	r.tb.Cleanup(stop)
	return s, stop
}

var door = topic.Topic{MAC: "e4fd45f654be", Mode: topic.AccessControlMode, Connector: 3, Component: topic.Component{Kind: topic.DoorSensors}}

// state is a message of a door.
func (r *rig) state(t topic.Topic, at time.Time, open bool) *nats.Msg {
	r.sequence++
	d := event.Decoded{
		ID: event.PlaceID(1, r.sequence), Time: at, Received: at, Root: "tele", ControllerID: 1, MetadataVersion: "1",
		State: fmt.Appendf(nil, `{"door-sensor-1":%t,"door-sensor-2":false}`, open),
	}
	return &nats.Msg{Subject: t.DecodedSubject(), Data: d.AppendJSON(nil)}
}

func (r *rig) publish(all ...*nats.Msg) {
	r.tb.Helper()
	for _, m := range all {
		_, err := r.operator.JetStream().PublishMsg(r.tb.Context(), m)
		require.NoError(r.tb, err)
	}
}

// change asks the service as a person does.
func (r *rig) change(c alert.ChangeRequest) (alert.Entry, error) {
	return askForChange(r.tb.Context(), r.operator.JetStream().Conn(), &c)
}

// entries reads ALARM.
func (r *rig) entries() (all []alert.Entry) {
	r.tb.Helper()
	require.NoError(r.tb, stream.Scan{Stream: stream.Alarm}.Read(r.tb.Context(), r.operator.JetStream(), func(m *stream.Message) error {
		e, err := alert.Parse(m.Data)
		assert.Equal(r.tb, m.Subject, e.Subject())
		all = append(all, e)
		return err
	}))
	return all
}

// statuses are those of all entries but the service's own alarms.
func (r *rig) statuses() (all []alert.Phase) {
	for _, e := range r.entries() {
		if e.Service != serviceName {
			all = append(all, e.Status)
		}
	}
	return all
}

// become waits until ALARM has these entries.
func (r *rig) become(want ...alert.Phase) {
	r.tb.Helper()
	require.EventuallyWithT(r.tb, func(c *assert.CollectT) { assert.Equal(c, want, r.statuses()) }, patience, 50*time.Millisecond)
}

// settled waits until the service has acknowledged all of DECODED.
func (r *rig) settled() {
	r.tb.Helper()
	require.Eventually(r.tb, func() bool {
		info, err := stream.FindConsumer(r.tb.Context(), r.operator.JetStream(), stream.Decoded, serviceName)
		return err == nil && info.NumPending == 0 && info.NumAckPending == 0
	}, 4*patience, 20*time.Millisecond)
}

// received is a message as it comes from DECODED.
type received struct {
	jetstream.Msg
	m *nats.Msg
}

func (r received) Subject() string      { return r.m.Subject }
func (r received) Data() []byte         { return r.m.Data }
func (r received) Headers() nats.Header { return r.m.Header }
