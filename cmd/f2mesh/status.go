package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/health"
	"github.com/f2mesh/f2mesh/services/bridge"
	"github.com/f2mesh/f2mesh/services/decoder"
)

type statusCommand struct {
	Sample time.Duration `help:"Over how long rates are measured." default:"1s"`
	JSON   bool          `help:"Print JSON."`
}

// stageStatus is one line of the screen.
type stageStatus struct {
	Stage     string  `json:"stage"`
	Ready     bool    `json:"ready"`
	Cause     string  `json:"cause,omitempty"`
	Rate      float64 `json:"messages_per_second"`
	Lag       uint64  `json:"lag"` // messages that wait for it or are in its hands
	Redeliver int     `json:"redelivered"`
	Dead      float64 `json:"dead_letters"` // since it started
}

type streamStatus struct {
	Stream   string `json:"stream"`
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
	MaxBytes int64  `json:"max_bytes"`
}

type meshStatus struct {
	Stages  []stageStatus  `json:"stages"`
	Streams []streamStatus `json:"streams"`
}

// errUnhealthy makes the exit status say what the screen says.
var errUnhealthy = errors.New("a stage is not ready")

// Run prints one screen; its exit status is 1 if a stage is not ready.
func (c *statusCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	nc, _, err := connectRunning(ctx, g, log)
	if err != nil {
		return err
	}
	defer nc.Close()
	s, err := c.observe(ctx, nc)
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(s)
	} else {
		err = s.print(os.Stdout)
	}
	for _, stage := range s.Stages {
		if !stage.Ready {
			err = errors.Join(err, errUnhealthy)
			break
		}
	}
	return err
}

// stages says what each stage consumes and which counter is its rate.
var stages = []struct{ name, stream, counter string }{
	{"bridge", "", "f2mesh_bridge_messages_received_total"},
	{"decoder", bridge.RawStream, "f2mesh_decoder_messages_received_total"},
	{"writer", decoder.DecodedStream, "f2mesh_writer_messages_received_total"},
	{"registrar", "", "f2mesh_registrar_enrolments_total"},
}

func (c *statusCommand) observe(ctx context.Context, nc *nats.Conn) (*meshStatus, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("opening JetStream: %w", err)
	}
	before := collect(nc)
	select {
	case <-time.After(c.Sample):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	after := collect(nc)
	s := &meshStatus{}
	for _, stage := range stages {
		line := stageStatus{Stage: stage.name}
		line.Ready, line.Cause = askReady(nc, stage.name)
		line.Rate = max(0, after[stage.name][stage.counter]-before[stage.name][stage.counter]) / c.Sample.Seconds()
		line.Dead = after[stage.name]["f2mesh_"+stage.name+"_dead_letters_total"]
		if stage.stream != "" {
			if consumer, err := js.Consumer(ctx, stage.stream, stage.name); err == nil {
				info := consumer.CachedInfo()
				line.Lag = info.NumPending + uint64(max(0, info.NumAckPending))
				line.Redeliver = info.NumRedelivered
			}
		}
		s.Stages = append(s.Stages, line)
	}
	for _, name := range []string{bridge.RawStream, decoder.DecodedStream, deadletter.Stream, bridge.CommandStream, decoder.LatestStream} {
		stream, err := js.Stream(ctx, name)
		if err != nil {
			continue // not there before its service has started
		}
		info := stream.CachedInfo()
		s.Streams = append(s.Streams, streamStatus{name, info.State.Msgs, info.State.Bytes, info.Config.MaxBytes})
	}
	return s, nil
}

// collect asks all services for their figures and adds up those of one name.
func collect(nc *nats.Conn) map[string]map[string]float64 {
	figures := map[string]map[string]float64{}
	inbox := nc.NewRespInbox()
	answers, err := nc.SubscribeSync(inbox)
	if err != nil {
		return figures
	}
	defer func() { _ = answers.Unsubscribe() }()
	if err := nc.PublishRequest("$SRV.STATS", inbox, nil); err != nil {
		return figures
	}
	for {
		m, err := answers.NextMsg(200 * time.Millisecond)
		if err != nil {
			return figures
		}
		o, ok := health.ParseStats(m.Data)
		if !ok {
			continue
		}
		if figures[o.Name] == nil {
			figures[o.Name] = map[string]float64{}
		}
		for name, v := range o.Figures {
			figures[o.Name][name] += v
		}
	}
}

func askReady(nc *nats.Conn, stage string) (ready bool, cause string) {
	m, err := nc.Request(health.ReadySubject(stage), nil, 3*time.Second)
	if err != nil {
		return false, "does not answer: is it running?"
	}
	var r health.Readiness
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return false, "answers something else"
	}
	return r.Ready, r.Cause
}

func (s *meshStatus) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "STAGE\tHEALTH\tMSG/S\tLAG\tREDELIVERED\tDEAD LETTERS\t")
	for _, l := range s.Stages {
		state := "ready"
		if !l.Ready {
			state = "NOT READY"
		}
		lag, redelivered := strconv.FormatUint(l.Lag, 10), strconv.Itoa(l.Redeliver)
		if l.Stage == "bridge" { // what waits for it is in the broker, which does not tell
			lag, redelivered = "-", "-"
		}
		fmt.Fprintf(table, "%s\t%s\t%.0f\t%s\t%s\t%.0f\t\n", l.Stage, state, l.Rate, lag, redelivered, l.Dead)
	}
	fmt.Fprintln(table, "\nSTREAM\tMESSAGES\tBYTES\tOF\t\t\t")
	for _, l := range s.Streams {
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t\t\t\n", l.Stream, l.Messages, mebibytes(l.Bytes), mebibytes(uint64(max(0, l.MaxBytes))))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, l := range s.Stages {
		if l.Cause != "" {
			fmt.Fprintf(out, "%s: %s\n", l.Stage, l.Cause)
		}
	}
	return nil
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
