package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"
	"syscall"
	"text/template"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// system is one of the two that are compared.
type system struct {
	name  string
	parts []string // of `f2mesh up`; none: all
	table string   // of its rows, in the database of the readings
	rows  int64    // of a message
	start func(ctx context.Context, s *servers) (*consumer, error)
}

var (
	f2mesh   = system{name: "f2mesh", table: "public.measurement", rows: points, start: openMesh}
	telegraf = system{name: "Telegraf", parts: []string{local.PartPostgres, local.PartMosquitto}, table: "public.reading", rows: 1, start: startTelegraf}
)

// consumer turns the broker's messages into rows.
type consumer struct {
	*process.Process
	written func(context.Context) (int64, error) // rows, by its own count
	close   func()
}

// servers are the broker, the database and, for f2mesh, all others, in a state directory of their own.
type servers struct {
	*process.Process // `f2mesh up`
	mesh.Mesh
}

// stopTimeout bounds the end of a process.
const stopTimeout = time.Minute

// run starts a process, whose lines parse gets.
func run(program string, parse func(string), args ...string) (*process.Process, error) {
	path, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	return process.Start(process.Config{
		Path: path, Args: args, Env: os.Environ(), Log: slog.New(slog.DiscardHandler),
		Parse: func(line string) process.LogLine { parse(line); return process.LogLine{Text: line} },
	})
}

// end stops a process in order.
func end(p *process.Process) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return p.Stop(ctx, syscall.SIGTERM)
}

// until waits for done while the process runs.
func until(ctx context.Context, p *process.Process, done func() bool) error {
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.Done():
			return fmt.Errorf("the process exited unexpectedly; its last lines:\n%s", p.Tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// startServers starts `f2mesh up` with some parts, and with controllers of the demo fleet, on a new state directory.
func startServers(ctx context.Context, dir string, parts []string, controllers int) (s *servers, err error) {
	s = &servers{Mesh: mesh.Mesh{State: mesh.State{Dir: dir}}}
	args := append([]string{"up", "--state-dir", dir, "--no-simulate", "--controllers", strconv.Itoa(controllers)}, parts...)
	if s.Process, err = run("bin/f2mesh", func(string) {}, args...); err != nil {
		return nil, err
	}
	if err = until(ctx, s.Process, func() bool { return mesh.Exists(s.State.Path("up.done")) }); err == nil {
		s.Description, err = s.State.Load()
	}
	if err == nil {
		s.Secrets, err = s.State.Secrets(slog.New(slog.DiscardHandler))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting f2mesh up: %w", err), end(s.Process), local.Remove(s.State, io.Discard, false))
	}
	return s, nil
}

// alone runs a measurement of f2mesh on a mesh of its own, which it removes afterwards.
func alone(ctx context.Context, name string, controllers int, measure func(*servers) error) (err error) {
	dir, err := os.MkdirTemp("", "f2mesh-"+name+"-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // as root the servers run as other users
		return err
	}
	s, err := startServers(ctx, dir+"/state", nil, controllers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	return measure(s)
}

// remove stops the servers and removes their data.
func (s *servers) remove() error {
	s.Secrets.Close()
	return errors.Join(end(s.Process), local.Remove(s.State, io.Discard, false))
}

// count counts the rows of a table.
func (s *servers) count(ctx context.Context, table string) (n int64, err error) {
	conn, err := s.Description.Superuser(ctx, s.Secrets, mesh.DatabaseTelemetry)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		return 0, fmt.Errorf("counting the rows of %s: %w", table, err)
	}
	return n, nil
}

// openMesh is f2mesh as a consumer: `f2mesh up` itself.
func openMesh(ctx context.Context, s *servers) (*consumer, error) {
	m, err := mesh.Open(ctx, s.State, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	written := func(ctx context.Context) (int64, error) {
		answer, err := m.JetStream.Conn().RequestMsgWithContext(ctx, &nats.Msg{Subject: "$SRV.STATS." + probe.MicroPrefix + local.PartWriter})
		if err != nil {
			return 0, fmt.Errorf("asking the writer for its count: %w", err)
		}
		figures, ok := probe.ParseStats(answer.Data)
		if !ok {
			return 0, errors.New("asking the writer for its count: malformed reply")
		}
		return int64(figures.Figures["f2mesh_writer_rows_written_total"]), nil
	}
	return &consumer{Process: s.Process, written: written, close: m.Close}, nil
}

// These lines of Telegraf's log say that a batch is in the table, and that it is in the broker's session.
var (
	writtenLine   = regexp.MustCompile(`\[outputs\.postgresql\] Wrote batch of (\d+) metrics`)
	connectedLine = regexp.MustCompile(`\[inputs\.mqtt_consumer\] Connected `)
)

// parseWritten returns how many metrics a line says were written.
func parseWritten(line string) (n int64, ok bool) {
	m := writtenLine.FindStringSubmatch(line)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	return n, err == nil
}

//go:embed telegraf.conf
var telegrafConf string

// startTelegraf starts Telegraf as the bridge's user, in the session that the broker has for the
// bridge. In a session of its own, its messages would also wait in the bridge's.
func startTelegraf(ctx context.Context, s *servers) (*consumer, error) {
	d := s.Description
	user, password, err := mesh.LogIn(ctx, s.Secrets, mesh.SecretMQTTPassword)
	if err != nil {
		return nil, err
	}
	role, rolePassword, err := mesh.LogIn(ctx, s.Secrets, mesh.SecretTimescale)
	if err != nil {
		return nil, err
	}
	database, err := url.Parse(d.DSN(role, mesh.DatabaseTelemetry))
	if err != nil {
		return nil, err
	}
	database.User = url.UserPassword(role, rolePassword)
	var conf bytes.Buffer
	err = template.Must(template.New("").Parse(telegrafConf)).Execute(&conf, map[string]string{
		"Broker": "tcp://" + net.JoinHostPort(d.Host, strconv.Itoa(d.Ports.MQTT)), "User": user, "Password": password, "Database": database.String(),
	})
	if err != nil {
		return nil, err
	}
	file := s.State.Path("secrets", "telegraf.conf")
	if err := os.WriteFile(file, conf.Bytes(), 0o600); err != nil {
		return nil, err
	}
	var rows atomic.Int64
	var connected atomic.Bool
	p, err := run("bin/tools/telegraf", func(line string) {
		if n, ok := parseWritten(line); ok {
			rows.Add(n)
		} else if connectedLine.MatchString(line) {
			connected.Store(true)
		}
	}, "--config", file)
	if err != nil {
		return nil, err
	}
	if err := until(ctx, p, connected.Load); err != nil {
		return nil, errors.Join(fmt.Errorf("starting Telegraf: %w", err), end(p))
	}
	return &consumer{
		Process: p,
		written: func(context.Context) (int64, error) { return rows.Load(), nil },
		close:   func() { _ = end(p) },
	}, nil
}
