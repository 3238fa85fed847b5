package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"text/tabwriter"
	"time"

	"github.com/prometheus/procfs"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const steadyCommand = "steady"

// fillChunk is how many rows one statement of a fill inserts.
const fillChunk = 1_000_000

// steady shows whether memory and the cost of a message stay the same while the streams and the table fill: it
// sends at a constant rate for a long time, and prints a line for each part of it.
func steady(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet(steadyCommand, flag.ExitOnError)
	rate := flags.Int("rate", 3000, "messages a second of the whole fleet")
	each := flags.Duration("each", time.Minute, "length of a part")
	parts := flags.Int("parts", 10, "parts")
	raw := flags.Int64("raw", 0, "limit of RAW in `MiB`, to have it full soon; 0: as installed")
	decoded := flags.Int64("decoded", 0, "limit of DECODED in `MiB`, likewise")
	rows := flags.Int("rows", 0, "other rows that the table has at the beginning")
	_ = flags.Parse(args[1:]) // it exits
	if *rate < 1 || *each < time.Second || *parts < 1 || *raw < 0 || *decoded < 0 || *rows < 0 || flags.NArg() > 0 {
		return errors.New("-rate and -parts must be at least 1, -each at least 1s, -raw, -decoded and -rows at least 0, and there are no other arguments")
	}
	return alone(ctx, steadyCommand, controllers, func(s *servers) error {
		m, err := mesh.Open(ctx, s.State, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer m.Close()
		if err := errors.Join(limit(ctx, m, stream.Raw, *raw<<20), limit(ctx, m, stream.Decoded, *decoded<<20)); err != nil {
			return err
		}
		if err := s.fill(ctx, *rows); err != nil {
			return err
		}
		c, err := openMesh(ctx, s)
		if err != nil {
			return err
		}
		defer c.close()
		if err := c.warm(ctx, f2mesh, s); err != nil {
			return err
		}
		load, err := startLoad(ctx, s, *rate*int(each.Seconds())**parts, *rate)
		if err != nil {
			return err
		}
		if err := c.watch(ctx, s, m, *each, *parts, int64(*rows)); err != nil {
			return errors.Join(err, load.Process.Kill(), load.Wait())
		}
		return load.Wait()
	})
}

// limit sets the limit of a stream, unless it is 0.
func limit(ctx context.Context, m *mesh.Mesh, name string, bytes int64) error {
	if bytes == 0 {
		return nil
	}
	info, err := stream.Find(ctx, m.JetStream, name)
	if err != nil {
		return err
	}
	if info == nil {
		return fmt.Errorf("there is no stream %s", name)
	}
	info.Config.MaxBytes = bytes
	if _, err = m.JetStream.UpdateStream(ctx, info.Config); err != nil {
		return fmt.Errorf("limiting %s: %w", name, err)
	}
	return nil
}

// fill inserts rows of other devices, of each of a thousand devices a reading every 20 s.
func (s *servers) fill(ctx context.Context, rows int) error {
	conn, err := s.Description.Superuser(ctx, s.Secrets, mesh.DatabaseTelemetry)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for done := 0; done < rows; done += fillChunk {
		fmt.Fprintf(os.Stderr, "\rfilling the table: %d of %d million rows", done/1e6, rows/1e6)
		_, err := conn.Exec(ctx, `INSERT INTO public.measurement (time, received, device_id, datapoint_id, value)
			SELECT at, at, 1000000 + i % 1000, 1, random() FROM generate_series($1::int8, $2::int8 - 1) i,
			LATERAL (SELECT now() - interval '30 days' + (i / 1000) * interval '20 seconds' AS at)`,
			done, min(rows, done+fillChunk))
		if err != nil {
			return fmt.Errorf("filling the table: %w", err)
		}
	}
	if rows > 0 {
		fmt.Fprintln(os.Stderr, "\rthe table is filled: vacuuming it")
		if _, err := conn.Exec(ctx, "VACUUM ANALYZE public.measurement"); err != nil {
			return fmt.Errorf("vacuuming the table: %w", err)
		}
	}
	return nil
}

// watch prints a line for each part: its figures, and what RAW and the table hold at its end.
func (c *consumer) watch(ctx context.Context, s *servers, m *mesh.Mesh, each time.Duration, parts int, other int64) error {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return err
	}
	used := processes{up: s.Pid(), own: c.Pid()}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "part\tmessages/s\town µs\tMosquitto µs\tPostgreSQL µs\tall µs\tpeak MiB\tRAW MiB\trows\tother cores\t")
	if err := table.Flush(); err != nil {
		return err
	}
	written, err := c.written(ctx)
	if err != nil {
		return err
	}
	before, err := used.measure(fs)
	if err != nil {
		return err
	}
	began := time.Now()
	for part := 1; part <= parts; part++ {
		if err := used.resetPeak(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.Done():
			return fmt.Errorf("f2mesh exited unexpectedly; its last lines:\n%s", c.Tail())
		case <-time.After(each):
		}
		after, err := used.measure(fs)
		if err != nil {
			return err
		}
		now, err := c.written(ctx)
		if err != nil {
			return err
		}
		info, err := stream.Find(ctx, m.JetStream, stream.Raw)
		if err != nil || info == nil {
			return errors.Join(err, errors.New("looking at RAW"))
		}
		took := time.Since(began).Seconds()
		f := figuresOf(before, after, took, float64(now-written)/points)
		fmt.Fprintf(table, "%d\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%d\t%d\t%.1f\t\n", part, f.Rate, f.Own, f.Mosquitto, f.PostgreSQL, f.All, f.Memory,
			info.State.Bytes>>20, now+other, (after.machine-before.machine)/took-f.All*f.Rate/1e6)
		if err := table.Flush(); err != nil {
			return err
		}
		before, written, began = after, now, time.Now()
	}
	return nil
}
