package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/services/registrar"
)

type deviceListCommand struct {
	registryFlags
	JSON bool `help:"Print JSON."`
}

// Run prints one controller a line.
func (c *deviceListCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	return c.with(ctx, g, log, func(r *registry) error {
		devices, err := r.List(ctx)
		if err != nil {
			return err
		}
		addLastSeen(ctx, g, log, devices, "")
		if c.JSON {
			return printJSON(devices)
		}
		return printDevices(os.Stdout, devices, time.Now())
	})
}

func printJSON(v any) error {
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(v)
}

func printDevices(out io.Writer, devices []registrar.Device, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, cells("MAC", "SERIAL NUMBER", "STATUS", "VALID UNTIL", "LAST SEEN"))
	for i := range devices {
		d := &devices[i]
		fmt.Fprint(table, cells(d.MAC.Dashed(), d.SerialNumber, standing(d, now), until(d), ago(d.LastSeen, now)))
	}
	return table.Flush()
}

// standing is a device's status, and what should be done about its certificate.
func standing(d *registrar.Device, now time.Time) string {
	switch {
	case d.Status != registrar.Active:
		return string(d.Status)
	case now.After(d.NotAfter):
		return "expired"
	case d.Due(now):
		return "renew"
	}
	return string(d.Status)
}

func ago(at *time.Time, now time.Time) string {
	if at == nil {
		return "-"
	}
	return now.Sub(*at).Round(time.Second).String() + " ago"
}

type deviceShowCommand struct {
	registryFlags
	MAC  string `arg:"" help:"MAC address, in any notation."`
	JSON bool   `help:"Print JSON."`
}

// Run prints all that is known of one controller.
func (c *deviceShowCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	macs, err := parseMACs([]string{c.MAC})
	if err != nil {
		return err
	}
	return c.with(ctx, g, log, func(r *registry) error {
		d, err := r.Show(ctx, macs[0])
		if err != nil {
			return err
		}
		devices := []registrar.Device{d}
		addLastSeen(ctx, g, log, devices, d.MAC)
		if c.JSON {
			return printJSON(devices[0])
		}
		return printDevice(os.Stdout, &devices[0], r.Bundle(d.MAC), time.Now())
	})
}

func printDevice(out io.Writer, d *registrar.Device, bundle string, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	key := "in the bundle"
	if d.OwnKey {
		key = "made on the device, not here"
	}
	for _, row := range [][2]string{
		{"MAC", d.MAC.Dashed()},
		{"serial number", d.SerialNumber},
		{"status", standing(d, now)},
		{"certificate", d.Certificate},
		{"SHA-256", d.Fingerprint},
		{"issuing CA", d.Issuer},
		{"valid", d.NotBefore.Local().Format(time.RFC3339) + " to " + d.NotAfter.Local().Format(time.RFC3339)},
		{"key", key},
		{"bundle", bundle},
		{"registered", d.RegisteredAt.Local().Format(time.RFC3339)},
		{"renewed", moment(d.RenewedAt)},
		{"revoked", moment(d.RevokedAt)},
		{"last seen", ago(d.LastSeen, now)},
	} {
		fmt.Fprint(table, cells(row[:]...))
	}
	return table.Flush()
}

func moment(at *time.Time) string {
	if at == nil {
		return "-"
	}
	return at.Local().Format(time.RFC3339)
}

// addLastSeen looks up when readings last came in, of one controller or with "" of
// all. Without NATS the list is worth printing too.
func addLastSeen(ctx context.Context, g *globals, log *slog.Logger, devices []registrar.Device, of topic.MAC) {
	seen, err := lastSeen(ctx, g, log, of)
	if err != nil {
		log.Warn("not known who was seen last when", "error", err)
		return
	}
	for i := range devices {
		if at, ok := seen[devices[i].MAC]; ok {
			devices[i].LastSeen = &at
		}
	}
}

const latestPrefix = "$KV.LATEST."

// lastSeen reads the headers of LATEST.
func lastSeen(ctx context.Context, g *globals, log *slog.Logger, of topic.MAC) (map[topic.MAC]time.Time, error) {
	m, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	filter := latestPrefix + ">"
	if of != "" {
		filter = latestPrefix + string(of) + ".>"
	}
	consumer, err := m.JetStream.OrderedConsumer(ctx, mesh.StreamLatest, jetstream.OrderedConsumerConfig{HeadersOnly: true, FilterSubjects: []string{filter}})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil //nolint:nilnil // nothing was decoded yet: nobody was seen
	}
	if err != nil {
		return nil, fmt.Errorf("reading LATEST: %w", err)
	}
	return readSeen(ctx, consumer)
}

func readSeen(ctx context.Context, consumer jetstream.Consumer) (map[topic.MAC]time.Time, error) {
	info, err := consumer.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading LATEST: %w", err)
	}
	seen := map[topic.MAC]time.Time{}
	for pending := info.NumPending; pending > 0; {
		m, err := consumer.Next(jetstream.FetchMaxWait(5 * time.Second))
		if err != nil {
			return nil, fmt.Errorf("reading LATEST: %w", err)
		}
		about, err := m.Metadata()
		if err != nil {
			return nil, fmt.Errorf("reading LATEST: %w", err)
		}
		pending = about.NumPending
		token, _, _ := strings.Cut(strings.TrimPrefix(m.Subject(), latestPrefix), ".")
		if mac, err := topic.ParseMAC(token); err == nil && about.Timestamp.After(seen[mac]) {
			seen[mac] = about.Timestamp
		}
	}
	return seen, nil
}
