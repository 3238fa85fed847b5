package registrar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/operate/progress"
)

// WriteDevices writes the devices as a table.
func WriteDevices(out io.Writer, devices []Device, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, plain.Row("MAC", "SERIAL NUMBER", "STATUS", "VALID UNTIL", "LAST SEEN"))
	for i := range devices {
		d := &devices[i]
		fmt.Fprint(table, plain.Row(d.MAC.Dashed(), d.SerialNumber, condition(d, now), Until(d), ago(d.LastSeen, now)))
	}
	return table.Flush()
}

// condition is a device's status, and what should be done about its certificate.
func condition(d *Device, now time.Time) string {
	switch {
	case d.Status != Active:
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

// WriteDevice writes all that is known of one device.
func WriteDevice(out io.Writer, d *Device, bundle string, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	key := "in the bundle"
	if d.OwnKey {
		key = "made on the device, not here"
	}
	for _, row := range [][2]string{
		{"MAC", d.MAC.Dashed()},
		{"serial number", d.SerialNumber},
		{"status", condition(d, now)},
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
		fmt.Fprint(table, plain.Row(row[0], row[1]))
	}
	return table.Flush()
}

func moment(at *time.Time) string {
	if at == nil {
		return "-"
	}
	return at.Local().Format(time.RFC3339)
}

// AddLastSeen looks up when readings last came in, of one controller or with "" of
// all. Without NATS the list is worth printing too.
func AddLastSeen(ctx context.Context, st mesh.State, log *slog.Logger, devices []Device, of topic.MAC) {
	seen, err := lastSeen(ctx, st, log, of)
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
func lastSeen(ctx context.Context, st mesh.State, log *slog.Logger, of topic.MAC) (map[topic.MAC]time.Time, error) {
	m, err := mesh.Open(ctx, st, log)
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

// WriteEvents writes events of the audit trail as a table.
func WriteEvents(out io.Writer, events []Event) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TIME\tACTOR\tACTION\tCONTROLLER\tCERTIFICATE\tFROM\tDETAIL")
	for _, e := range events {
		fmt.Fprint(table, plain.Row(e.Time.UTC().Format(time.RFC3339), e.Actor, string(e.Action), e.MAC.Dashed(), e.Serial, e.Address, e.Detail))
	}
	return table.Flush()
}

// RegisterOne registers a device, prints the result, and names the remedy in its error.
func (r *Core) RegisterOne(ctx context.Context, by Origin, q *Request) error {
	results, err := r.Register(ctx, by, *q)
	if err != nil {
		return err
	}
	d := &results[0].Device
	switch {
	case results[0].Err != nil:
		return notRegistered(q, &results[0])
	case !results[0].Issued:
		fmt.Printf("%s is registered already, certificate %s, valid until %s: nothing changed\n", d.MAC.Dashed(), d.Certificate, Until(d))
	default:
		fmt.Printf("%s is registered: certificate %s, valid until %s, in %s\n", d.MAC.Dashed(), d.Certificate, Until(d), r.Bundle(d.MAC))
	}
	return nil
}

// PreviewOne says what registerOne would do.
func (r *Core) PreviewOne(ctx context.Context, q *Request) error {
	results, err := r.Foresee(ctx, *q)
	if err != nil {
		return err
	}
	d, err := r.Show(ctx, q.MAC)
	unknown := errors.Is(err, ErrUnknown)
	switch {
	case err != nil && !unknown:
		return err
	case results[0].Err != nil:
		return notRegistered(q, &results[0])
	case unknown:
		fmt.Printf("%s would be registered\n", q.MAC.Dashed())
	case results[0].Issued:
		fmt.Printf("%s would get a new certificate; certificate %s would be revoked and its session ended\n", q.MAC.Dashed(), d.Certificate)
	default:
		fmt.Printf("%s is registered already (%s): nothing would change\n", q.MAC.Dashed(), d.Status)
	}
	return nil
}

// notRegistered says why, and what can be done.
func notRegistered(q *Request, result *RequestResult) error {
	switch err := result.Err; {
	case errors.Is(err, ErrRevoked):
		return fmt.Errorf("%s was revoked: --force registers it again", q.MAC.Dashed())
	case errors.Is(err, ErrConflict):
		return fmt.Errorf("%s is registered with serial number %s: --force replaces it and revokes its certificate", q.MAC.Dashed(), result.Device.SerialNumber)
	case errors.Is(err, ErrOtherKey):
		return fmt.Errorf("%[1]s is registered already, with another key than that of --csr: `f2mesh device renew %[1]s --csr FILE` gives it a certificate for this key and leaves the old one valid; `--force` replaces and revokes it",
			q.MAC.Dashed())
	default:
		return fmt.Errorf("registering %s: %w", q.MAC.Dashed(), err)
	}
}

// ImportList registers a list, or in a dry run says what that would do. What it
// registers stays registered if it is interrupted, and a second time it goes on from
// there.
func (r *Core) ImportList(ctx context.Context, by Origin, file string, dryRun bool) error {
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return fmt.Errorf("reading the list of controllers: %w", err)
	}
	bar, total := progress.Count("registering"), uint64(bytes.Count(text, []byte("\n"))) //nolint:gosec // not negative
	var issued, there, refused int
	report := func(l ImportLine) {
		bar.Set(uint64(l.Number), total) //nolint:gosec // not negative
		switch {
		case l.Result.Err != nil:
			refused++
			fmt.Fprintf(os.Stderr, "%s:%d: %v\n", file, l.Number, l.Result.Err)
		case l.Result.Issued:
			issued++
		default:
			there++
		}
	}
	outcome := "%d registered, %d were registered already, %d lines refused\n"
	if dryRun {
		outcome = "%d would be registered, %d are registered already, %d lines would be refused; nothing was done\n"
		err = r.Preview(ctx, bytes.NewReader(text), report)
	} else {
		err = r.Import(ctx, by, bytes.NewReader(text), report)
	}
	bar.Finish()
	fmt.Printf(outcome, issued, there, refused)
	switch {
	case ctx.Err() != nil && !dryRun:
		return errors.New("interrupted: the same command goes on where it stopped")
	case err != nil:
		return err
	case refused > 0:
		return fmt.Errorf("%d lines of %s, each named above with its reason", refused, file)
	}
	return nil
}
