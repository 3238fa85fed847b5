package local

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/term"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
)

// summary shows what runs where and how to look inside; with readings it waits
// for the first rows and shows them.
func (m *Parts) summary(ctx context.Context, out io.Writer, readings bool) error {
	p := m.Ports()
	pooler := "none: services go to PostgreSQL directly"
	if p.PgBouncer != 0 {
		pooler = m.Address(p.PgBouncer)
	}
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"MQTT, services (password)", m.Address(p.MQTT)},
		{"MQTT, people's tools (password)", m.Address(p.People)},
		{"MQTT over WebSocket, people (TLS, password)", m.Public(p.WebSocket)},
		{"MQTT, controllers (mTLS)", m.Public(p.MQTTTLS)},
		{"NATS (TLS, password)", m.Address(p.NATS)},
		{"PostgreSQL (TLS, password)", m.Address(p.Postgres)},
		{"PgBouncer (TLS, password)", pooler},
		{"enrolment, EST (TLS, claiming code)", "https://" + m.Public(p.EST) + "/.well-known/est"},
		{"console, health API (TLS, password)", "https://" + m.Public(p.HTTP) + "/"},
	} {
		fmt.Fprintf(table, "%s\t%s\n", line[0], line[1])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, `
look inside, after  eval "$(%[1]s)":
  nats stream ls                                          streams (./task nats -- stream ls brings the CLI)
  nats consumer report RAW                                lag of the decoder
  psql -c 'SELECT * FROM measurement ORDER BY time DESC LIMIT 5'
  XDG_CONFIG_HOME=$F2MESH_SECRETS_DIR mosquitto_sub -t 'tele/#' -v
  curl -K "$F2MESH_HTTP_CURL" "$F2MESH_HTTP_URL/status"
  %[2]s status | tail | audit
`, m.State.Command("env"), os.Args[0])
	if readings {
		fmt.Fprintln(out, "\nfirst readings:")
		if err := m.showReadings(ctx, out); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // stopping is no error
			}
			return err
		}
	}
	fmt.Fprintln(out)
	return os.WriteFile(m.State.Path("up.done"), nil, 0o600)
}

// showReadings waits for rows of the demo fleet and prints the latest.
func (m *Parts) showReadings(ctx context.Context, out io.Writer) error {
	conn, err := mesh.ConnectPostgres(ctx, m.DSN("", mesh.DatabaseTelemetry), m.Secrets, mesh.SecretReader)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	labels := pointLabels(m.Cfg.Controllers)
	for {
		shown, err := printReadings(ctx, conn, out, labels)
		if shown > 0 || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func printReadings(ctx context.Context, conn *pgx.Conn, out io.Writer, labels map[[2]int]string) (int, error) {
	rows, err := conn.Query(ctx, `SELECT time, device_id, datapoint_id, coalesce(text_value, value::text) FROM measurement ORDER BY received DESC LIMIT 6`)
	if err != nil {
		return 0, fmt.Errorf("reading measurements: %w", err)
	}
	type reading struct {
		Time          time.Time
		Device, Point int
		Value         string
	}
	readings, err := pgx.CollectRows(rows, pgx.RowToStructByPos[reading])
	if err != nil {
		return 0, fmt.Errorf("reading measurements: %w", err)
	}
	for _, r := range readings {
		fmt.Fprintf(out, "  %s  device %-4d %-28s %s\n", r.Time.UTC().Format(time.RFC3339), r.Device, labels[[2]int{r.Device, r.Point}], plain.Text(r.Value))
	}
	return len(readings), nil
}

func pointLabels(controllers int) map[[2]int]string {
	labels := map[[2]int]string{}
	for _, c := range fleet.Demo(controllers) {
		for _, s := range c.Sensors() {
			for _, p := range s.Template.Points {
				label := p.Label
				if p.Unit != "" {
					label += " (" + p.Unit + ")"
				}
				labels[[2]int{s.DeviceID, p.DataPointID}] = label
			}
		}
	}
	return labels
}

// showRates prints what each stage does, on one line that is drawn again every
// second on a terminal, else every ten seconds, until ctx ends.
func (m *Parts) showRates(ctx context.Context, out *os.File) {
	every, end := 10*time.Second, "\n"
	if term.IsTerminal(int(out.Fd())) {
		every, end = time.Second, "\033[K\r"
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	last := m.Figures()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := m.Figures()
		rate := func(name string) string {
			return strconv.FormatFloat(max(0, now[name]-last[name])/every.Seconds(), 'f', 0, 64)
		}
		dead := now["f2mesh_bridge_dead_letters_total"] + now["f2mesh_decoder_dead_letters_total"] + now["f2mesh_writer_dead_letters_total"]
		fmt.Fprintf(out, "bridge %s msg/s  decoder %s msg/s  writer %s rows/s  dead letters %.0f%s",
			rate("f2mesh_bridge_messages_received_total"), rate("f2mesh_decoder_messages_received_total"),
			rate("f2mesh_writer_rows_written_total"), dead, end)
		last = now
	}
}

// Figures are the counters of all services.
func (m *Parts) Figures() map[string]float64 {
	all := map[string]float64{}
	for _, s := range m.Services() {
		figures, err := probe.Figures(s.Gatherer)
		if err != nil {
			continue
		}
		for name, value := range figures {
			all[name] += value // those of secrets are every service's
		}
	}
	return all
}

// Metrics serves the metrics of all services of this process, and its profiles
// where only this machine reaches them.
func (m *Parts) Metrics() http.Handler {
	mux := probe.Handler(m.Services)
	if ip := net.ParseIP(m.Cfg.Public); ip != nil && ip.IsLoopback() {
		probe.AddProfiles(mux)
	}
	return mux
}
