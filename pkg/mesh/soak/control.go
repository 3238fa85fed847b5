package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/mesh"
)

// control is a run that must not come out clean: one measure of the mesh's safety is
// taken away, and the faults come that it protects from.
type control struct {
	weakness

	kind   string // of its faults
	target string // of all of them; "": the machine
	hold   time.Duration
	faults int
	// caught tells whether the report shows the damage.
	caught func(r *RunReport) bool
}

const controlMessages = 6000

func lost(r *RunReport) bool    { return r.Fates.Lost > 0 }
func doubled(r *RunReport) bool { return r.Fates.Doubled > 0 }
func stuck(r *RunReport) bool {
	return slices.ContainsFunc(r.Faults, func(f Fault) bool { return strings.Contains(f.Problem, newRow) })
}

func controls() []control {
	return []control{
		{weakness{name: "default-sync-interval", unsynced: true, start: time.Minute}, "power-cut", "", 0, 2, func(r *RunReport) bool { return r.JetStream.Missing > 0 || r.Broken != "" }},
		{weakness{name: "mqtt-auto-ack", bridgeLink: acknowledgeAtOnce}, "kill-unstored", "bridge-nats", time.Second, 3, lost},
		{weakness{name: "acknowledged-before-commit", afterStart: acknowledgedWhenDelivered}, "kill-unstored", "writer-pgbouncer", time.Second, 3, lost},
		{weakness{name: "database-without-sync", afterStart: withoutCommitSync}, "power-cut", "", 0, 2, func(r *RunReport) bool { return lost(r) || r.Broken != "" }},
		{weakness{name: "no-unique-key", afterStart: withoutUniqueKeys}, "kill-unacknowledged", "writer-nats", time.Second, 3, doubled},
		{weakness{name: "other-identifiers", bridgeLink: withOtherIdentifiers}, "kill-unacknowledged", "bridge-mosquitto", time.Second, 3, doubled},
		{weakness{name: "jetstream-retention", afterStart: jetStreamRetention}, "pause", "decoder", 5 * time.Second, 2, lost},
		{weakness{name: "broker-without-saves", noSaves: true}, "kill-broker-behind", "mosquitto", 4 * time.Second, 4, lost},
		{weakness{name: "vault-only", vaultOnly: true, recovery: 20 * time.Second}, "vault-sealed", "writer", 3 * time.Second, 1, stuck},
	}
}

// ControlNames are the names of all negative controls.
func ControlNames() (names []string) {
	for _, c := range controls() {
		names = append(names, c.name)
	}
	return names
}

// withoutCommitSync has PostgreSQL report a commit before it is on disk.
func withoutCommitSync(ctx context.Context, s *system) error {
	return s.superuser(ctx, "ALTER SYSTEM SET synchronous_commit = off", "ALTER SYSTEM SET wal_writer_delay = '10s'",
		"ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
}

// acknowledgedWhenDelivered has the server take each message for acknowledged that it has
// delivered to the writer.
func acknowledgedWhenDelivered(ctx context.Context, s *system) error {
	c, err := s.js.Consumer(ctx, "DECODED", "writer")
	if err != nil {
		return fmt.Errorf("asking for consumer writer: %w", err)
	}
	config := c.CachedInfo().Config
	config.AckPolicy, config.MaxAckPending = jetstream.AckNonePolicy, 0
	if err := s.js.DeleteConsumer(ctx, "DECODED", "writer"); err != nil {
		return fmt.Errorf("deleting consumer writer: %w", err)
	}
	if _, err := s.js.CreateConsumer(ctx, "DECODED", config); err != nil {
		return fmt.Errorf("making consumer writer: %w", err)
	}
	return nil
}

func withoutUniqueKeys(ctx context.Context, s *system) error {
	return s.superuser(ctx, "ALTER TABLE public.measurement DROP CONSTRAINT measurement_key", "ALTER TABLE public.device_event DROP CONSTRAINT device_event_key")
}

func (s *system) superuser(ctx context.Context, statements ...string) error {
	conn, err := s.local().parts.Superuser(ctx, mesh.DatabaseTelemetry)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := within(ctx, time.Minute, "the tables are there", func(ctx context.Context) bool {
		var there bool
		err := conn.QueryRow(ctx, "SELECT to_regclass('public.device_event') IS NOT NULL").Scan(&there)
		return err == nil && there
	}); err != nil {
		return err
	}
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("taking away what protects the tables: %w", err)
		}
	}
	return nil
}

// jetStreamRetention has RAW make room by itself, whatever the decoder has seen.
func jetStreamRetention(ctx context.Context, s *system) error {
	st, err := s.js.Stream(ctx, "RAW")
	if err != nil {
		return fmt.Errorf("asking for stream RAW: %w", err)
	}
	config := st.CachedInfo().Config
	config.Discard, config.MaxMsgs = jetstream.DiscardOld, 200
	if _, err := s.js.UpdateStream(ctx, config); err != nil {
		return fmt.Errorf("changing stream RAW: %w", err)
	}
	return nil
}

// runAll runs the mesh once and then the named controls, and reports everything. The
// error says what broke a promise or which control came out clean.
func runAll(ctx context.Context, cfg Config, names string, missing map[string]string, out io.Writer, file string) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	whole := &struct {
		Report   *RunReport   `json:"run"`
		Controls []*RunReport `json:"controls"`
		Clean    []string     `json:"controls_that_came_out_clean,omitempty"`
	}{}
	if whole.Report, err = Run(ctx, cfg); whole.Report != nil {
		whole.Report.NotHere = missing
		_, writeErr := whole.Report.WriteTo(out)
		err = errors.Join(err, writeErr)
	}
	if err != nil {
		return err
	}
	for _, c := range chosen {
		if why := missing[c.kind]; why != "" {
			fmt.Fprintf(out, "SKIPPED control %s (%s)\n", c.name, why)
			continue
		}
		report, err := cfg.control(ctx, c)
		if err != nil {
			return fmt.Errorf("control %s: %w", c.name, err)
		}
		whole.Controls = append(whole.Controls, report)
		text := "caught: " + strings.Join(report.Problems(), "; ")
		if !c.caught(report) {
			whole.Clean = append(whole.Clean, c.name)
			text = "CAME OUT CLEAN"
		}
		fmt.Fprintf(out, "control %s: %s\n", c.name, text)
	}
	if file != "" {
		text, err := json.MarshalIndent(whole, "", "  ")
		if err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil { //nolint:gosec // a report holds no secret
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	if problems := whole.Report.Problems(); len(problems) > 0 {
		err = errors.New(strings.Join(problems, "; "))
	}
	if len(whole.Clean) > 0 {
		err = errors.Join(err, fmt.Errorf("the oracle did not see what these controls broke: %s", strings.Join(whole.Clean, ", ")))
	}
	return err
}

func choose(names string) (chosen []control, err error) {
	switch names {
	case "none", "":
		return nil, nil
	case "all":
		return controls(), nil
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(controls(), func(c control) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown control %q; known: %v", name, ControlNames())
		}
		chosen = append(chosen, controls()[i])
	}
	return chosen, nil
}

// control runs one control.
func (c *Config) control(ctx context.Context, one control) (*RunReport, error) {
	own := *c
	own.Messages, own.UpgradeFrom, own.JudgeSpeed, own.Drain = controlMessages, "", false, false
	own.Kinds, own.Target, own.hold, own.Faults = []string{one.kind}, one.target, one.hold, one.faults
	c.Progress("control " + one.name)
	return own.run(ctx, one.weakness)
}
