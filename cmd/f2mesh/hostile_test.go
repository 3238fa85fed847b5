package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/hostile"
	"github.com/f2mesh/f2mesh/pkg/operate/ledger"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/server/web"
)

const (
	goodControllers = 100
	hostileRounds   = 3                 // each has a quiet phase and a hostile one
	patience        = 30 * time.Second  // with what is slow on a busy machine
	slowestEnd      = 100 * time.Second // of an attack: of 8883, which gives 90 s
	attackPause     = 300 * time.Millisecond
	floodOfIdle     = 300
	floodOfBroker   = 1100 // more than the 1,024 files that a process often may have
)

// TestHostileTraffic has 100 controllers send a reading and an event a second each, while all
// of pkg/operate/hostile attacks MQTT, EST, the health API and MQTT over WebSocket, in turns with quiet
// phases. Nothing is lost, nothing comes twice, no good controller loses its connection, others
// get in, and the memory of each process stays within bounds. How long a row takes is logged,
// not judged.
//
// The mesh is a process of its own, so its memory is not the attackers'. F2MESH_HOSTILE=10m is how long
// all phases take together: 100 s each, in which also the slowest attacks see their end.
func TestHostileTraffic(t *testing.T) {
	total := 24 * time.Second
	if text := os.Getenv("F2MESH_HOSTILE"); text != "" {
		var err error
		total, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	phase := total / (2 * hostileRounds)
	all := fleet.Demo(goodControllers + 1 + len(hostile.MQTT("")))
	m := upApart(t, len(all))
	good, late := all[:goodControllers], all[goodControllers]
	attackers := m.attackers(t, good[0].MAC, all[goodControllers+1:])
	fleet := m.startFleet(t, good)
	memory := m.watchMemory()
	time.Sleep(2 * time.Second) // of warming up

	for round := range hostileRounds {
		for _, name := range []string{"quiet", "hostile"} {
			began := fleet.begin(name)
			memory.begin(name)
			ctx, stop := context.WithTimeout(t.Context(), phase)
			if name == "hostile" {
				var busy sync.WaitGroup
				busy.Go(func() { attack(ctx, attackers) })
				end := m.flood(t)
				m.serves(t, late.MAC)
				end()
				busy.Wait()
			}
			<-ctx.Done()
			stop()
			fleet.settle(t)
			t.Logf("round %d, %-7s: rows %s; MiB %s", round+1, name, fleet.quantiles(began), memory.peaks())
		}
	}
	fleet.finish(t)
	t.Logf("all quiet phases: %s", fleet.quantilesOf("quiet"))
	t.Logf("all hostile phases: %s", fleet.quantilesOf("hostile"))
	t.Logf("p99 of the hostile phases is %.2f times that of the quiet ones", float64(fleet.p99("hostile"))/float64(fleet.p99("quiet")))
	for _, a := range attackers {
		t.Log(a)
		assert.Positive(t, a.ended+a.cut, "%s was never tried", a)
		assert.True(t, a.ended > 0 || phase < slowestEnd, "%s", a)
		assert.Zero(t, a.held, "%s: the server holds it for longer than %s", a, a.Within)
		assert.Empty(t, a.wrong)
	}
	young := int64(128 << 20) // the heap of a process that has just begun
	switch {
	case phase >= slowestEnd:
		young = 32 << 20
	case raceDetector(t):
		young *= 4 // its shadow memory grows with every address that is used for the first time
	}
	require.NoError(t, memory.stop(young))
	fleet.once(t)
	report, err := ledger.Audit(t.Context(), m.JetStream, m.rows, ledger.Options{})
	require.NoError(t, err)
	assert.True(t, report.Balanced())
}

// raceDetector reports whether this program, and so the mesh, was built with it.
func raceDetector(t *testing.T) bool {
	t.Helper()
	info, ok := debug.ReadBuildInfo()
	require.True(t, ok)
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// apartMesh is a mesh that is a process of its own.
type apartMesh struct {
	*mesh.Mesh
	rows *pgx.Conn // the reader's
	tls  *tls.Config
}

// upApart starts the program, and ends the mesh with the test.
func upApart(t *testing.T, controllers int) *apartMesh {
	t.Helper()
	dir := filepath.Join(accounttest.TempDir(t), "state")
	f2mesh := func(args ...string) {
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], args...)
		cmd.Env = append(os.Environ(), "F2MESH_TEST_RUN=1", "F2MESH_STATE_DIR="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil && strings.Contains(string(out), "not installed") {
			accounttest.SkipMissing(t, err)
		}
		require.NoError(t, err, "%s", out)
	}
	t.Cleanup(func() { f2mesh("down", "--volumes") })
	f2mesh("up", "--detach", "--no-simulate", "--controllers="+strconv.Itoa(controllers))
	c, err := mesh.Open(t.Context(), mesh.State{Dir: dir}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	rows, err := mesh.ConnectPostgres(t.Context(), c.Description.DSN("", mesh.DatabaseTelemetry), c.Secrets, mesh.SecretReader)
	require.NoError(t, err)
	t.Cleanup(func() { _ = rows.Close(context.WithoutCancel(t.Context())) })
	pem, err := os.ReadFile(c.Description.CAFile)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	return &apartMesh{Mesh: c, rows: rows, tls: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}}
}

func (m *apartMesh) address(port int) string {
	return net.JoinHostPort(m.Description.Host, strconv.Itoa(port))
}

func (m *apartMesh) certificate(t *testing.T, mac topic.MAC) tls.Certificate {
	t.Helper()
	return loadPair(t, filepath.Join(m.State.DevicesDir(), mac.Dashed()))
}

func loadPair(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "device.crt"), filepath.Join(dir, "device.key"))
	require.NoError(t, err)
	return pair
}

// controller connects one; lost is told if the connection ends by itself.
func (m *apartMesh) controller(t *testing.T, mac topic.MAC, lost func(error)) mqtt.Client {
	t.Helper()
	config := m.tls.Clone()
	config.Certificates = []tls.Certificate{m.certificate(t, mac)}
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("ssl://" + m.address(m.Description.Ports.MQTTTLS)).
		SetTLSConfig(config).SetAutoReconnect(false).SetConnectTimeout(patience).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { lost(err) }))
	token := client.Connect()
	require.True(t, token.WaitTimeout(patience))
	require.NoError(t, token.Error())
	return client
}

// serves shows that all four ports have room for others, while the attackers are there.
func (m *apartMesh) serves(t *testing.T, mac topic.MAC) {
	t.Helper()
	m.controller(t, mac, func(error) {}).Disconnect(100)
	user, password, err := m.Secrets.LogIn(t.Context(), mesh.SecretMQTTOperator)
	require.NoError(t, err)
	person := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("wss://" + m.address(m.Description.Ports.WebSocket)).SetUsername(user).
		SetPassword(password).SetTLSConfig(m.tls).SetAutoReconnect(false).SetConnectTimeout(patience))
	token := person.Connect()
	require.True(t, token.WaitTimeout(patience))
	require.NoError(t, token.Error(), "a person's browser")
	person.Disconnect(100)
	ask := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: m.tls}}
	for port, path := range map[int]string{m.Description.Ports.EST: "/.well-known/est/cacerts", m.Description.Ports.HTTP: "/healthz"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+m.address(port)+path, http.NoBody)
		require.NoError(t, err)
		response, err := ask.Do(request)
		require.NoError(t, err, path)
		require.NoError(t, response.Body.Close())
		assert.Equal(t, http.StatusOK, response.StatusCode, path)
	}
}

// attacker carries out one attack again and again, and counts what became of it.
type attacker struct {
	hostile.Attack
	door string
	to   hostile.Victim

	ended, held, refused, cut int // by the server in time; too late; no connection; as the phase ended
	longest                   time.Duration
	wrong                     []error // answers that should not be
}

func (a *attacker) String() string {
	return fmt.Sprintf("%-9s %-30s ended by the server %5d (the longest after %s), not taken %d, cut off at a phase's end %d, held %d",
		a.door, a.Name, a.ended, a.longest.Round(time.Millisecond), a.refused, a.cut, a.held)
}

// attackers are all kinds, at all doors. Those with certificates have one each, or they would
// end each other's connections.
func (m *apartMesh) attackers(t *testing.T, neighbor topic.MAC, villains []fleet.Controller) (all []*attacker) {
	t.Helper()
	elsewhere, err := identity.OpenAuthority(filepath.Join(t.TempDir(), "elsewhere"))
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "foreign")
	_, err = elsewhere.IssueDevice(dir, neighbor, "F2-000001")
	require.NoError(t, err)
	foreign := loadPair(t, filepath.Join(dir, neighbor.Dashed()))
	add := func(door string, port int, attacks []hostile.Attack) {
		for _, a := range attacks {
			to := hostile.Victim{Address: m.address(port), TLS: m.tls, From: "127.0.0.2", Foreign: foreign}
			if door == "MQTT" {
				to.Own, villains = m.certificate(t, villains[0].MAC), villains[1:]
			}
			all = append(all, &attacker{Attack: a, door: door, to: to})
		}
	}
	add("MQTT", m.Description.Ports.MQTTTLS, hostile.MQTT(string(neighbor)))
	add("WebSocket", m.Description.Ports.WebSocket, hostile.WebSocket())
	add("EST", m.Description.Ports.EST, hostile.Attacks("/.well-known/est/simpleenroll"))
	add("health", m.Description.Ports.HTTP, hostile.Attacks("/status"))
	return all
}

// attack has them all at work until ctx ends.
func attack(ctx context.Context, all []*attacker) {
	var busy sync.WaitGroup
	for _, a := range all {
		busy.Go(func() {
			for ctx.Err() == nil {
				a.once(ctx)
				select {
				case <-ctx.Done():
				case <-time.After(attackPause):
				}
			}
		})
	}
	busy.Wait()
}

func (a *attacker) once(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, a.Within)
	defer cancel()
	out, err := a.Do(bounded, a.to)
	switch {
	case ctx.Err() != nil:
		a.cut++
		return
	case errors.Is(err, hostile.ErrHeld):
		a.held++
	case err != nil:
		a.refused++
	default:
		a.ended++
		if wrong := a.Refused(out); wrong != nil {
			a.wrong = append(a.wrong, wrong)
		}
	}
	a.longest = max(a.longest, out.Held)
}

// flood has another machine keep connections that say nothing, until end.
func (m *apartMesh) flood(t *testing.T) (end func()) {
	t.Helper()
	var opening sync.WaitGroup
	var mu sync.Mutex // guards ends
	var ends []func()
	for name, port := range map[string]int{"WebSocket": m.Description.Ports.WebSocket, "EST": m.Description.Ports.EST, "health": m.Description.Ports.HTTP, "MQTT": m.Description.Ports.MQTTTLS} {
		opening.Go(func() {
			number := floodOfIdle
			if name == "MQTT" {
				number = floodOfBroker
			}
			closed, end, err := hostile.Open(t.Context(), hostile.Victim{Address: m.address(port), From: "127.0.0.3"}, number, 2*time.Second)
			if !assert.NoError(t, err, name) { //nolint:testifylint // not the test's goroutine
				return
			}
			t.Logf("of %d idle connections of one machine to %s %d are closed at once", number, name, closed)
			if name != "MQTT" {
				assert.Greater(t, closed, (number-web.MaxOfSource)*9/10, name) // one may be late
			}
			mu.Lock()
			defer mu.Unlock()
			ends = append(ends, end)
		})
	}
	opening.Wait()
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// reading is one that a controller has sent.
type reading struct {
	device int
	at     time.Time
}

// goodFleet sends, and finds what it has sent among the rows.
type goodFleet struct {
	m      *apartMesh
	sensor map[topic.MAC]int
	stop   context.CancelFunc
	done   sync.WaitGroup
	lost   atomic.Int64 // connections

	mu      sync.Mutex // guards the fields below
	phase   string
	waiting map[reading]string // phase in which it was sent
	took    map[string][]time.Duration
	acked   map[reading]bool
	events  map[topic.MAC]int
	failed  []error
}

func (m *apartMesh) startFleet(t *testing.T, controllers []fleet.Controller) *goodFleet {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &goodFleet{
		m: m, stop: stop, sensor: map[topic.MAC]int{}, waiting: map[reading]string{}, took: map[string][]time.Duration{},
		acked: map[reading]bool{}, events: map[topic.MAC]int{},
	}
	t.Cleanup(func() { stop(); f.done.Wait() })
	for _, c := range controllers {
		f.sensor[c.MAC] = c.Sensors()[0].DeviceID
	}
	for i, c := range controllers {
		client := m.controller(t, c.MAC, func(err error) {
			f.lost.Add(1)
			t.Logf("%s lost its connection: %v", c.MAC, err)
		})
		f.done.Go(func() {
			defer client.Disconnect(100)
			time.Sleep(time.Duration(i) * time.Second / goodControllers)
			ticker := time.NewTicker(time.Second)
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
					f.send(client, c.MAC)
				}
			}
		})
	}
	f.done.Go(func() {
		for ctx.Err() == nil {
			f.look(ctx)
			time.Sleep(10 * time.Millisecond)
		}
	})
	return f
}

// send has one controller send a reading, whose time is its name, and an event, and counts
// what the broker acknowledges.
func (f *goodFleet) send(client mqtt.Client, mac topic.MAC) {
	r := reading{f.sensor[mac], time.Now().UTC().Truncate(time.Microsecond)}
	f.mu.Lock()
	f.waiting[r] = f.phase
	f.mu.Unlock()
	one := client.Publish("tele/f2-"+string(mac)+"/sensor-mode/J1/sensor-1", 1, false, fmt.Sprintf(`{"timestamp":%q,"temperature":21}`, r.at.Format(time.RFC3339Nano)))
	two := client.Publish("tele/f2-"+string(mac)+"/alarm-mode/J4/motion-sensor-1", 1, false, `{"status":true}`)
	for _, token := range []mqtt.Token{one, two} {
		err := errors.New("no PUBACK")
		if token.WaitTimeout(time.Minute) {
			err = token.Error()
		}
		f.mu.Lock()
		switch {
		case err != nil:
			f.failed = append(f.failed, fmt.Errorf("%s: %w", mac, err))
		case token == one:
			f.acked[r] = true
		default:
			f.events[mac]++
		}
		f.mu.Unlock()
	}
}

// look notes which readings have become rows.
func (f *goodFleet) look(ctx context.Context) {
	f.mu.Lock()
	var oldest time.Time
	for r := range f.waiting {
		if oldest.IsZero() || r.at.Before(oldest) {
			oldest = r.at
		}
	}
	f.mu.Unlock()
	if oldest.IsZero() {
		return
	}
	there, err := f.rowsSince(context.WithoutCancel(ctx), oldest) // pgx closes a connection whose query is interrupted
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failed = append(f.failed, err)
		return
	}
	for r := range there {
		if phase, ok := f.waiting[r]; ok {
			delete(f.waiting, r)
			f.took[phase] = append(f.took[phase], now.Sub(r.at))
		}
	}
}

func (f *goodFleet) rowsSince(ctx context.Context, since time.Time) (map[reading]int, error) {
	rows, err := f.m.rows.Query(ctx, "SELECT device_id, time FROM measurement WHERE time >= $1", since)
	if err != nil {
		return nil, err
	}
	there := map[reading]int{}
	for rows.Next() {
		var r reading
		if err := rows.Scan(&r.device, &r.at); err != nil {
			return nil, err
		}
		r.at = r.at.UTC()
		there[r]++
	}
	return there, rows.Err()
}

// begin begins a phase, and returns how many of its kind's readings have been seen before.
func (f *goodFleet) begin(phase string) (seen int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase = phase
	return len(f.took[phase])
}

// settle waits until each reading of this phase is a row, with those of none in between.
func (f *goodFleet) settle(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	phase := f.phase
	f.phase = ""
	f.mu.Unlock()
	eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, sent := range f.waiting {
			if sent == phase {
				return false
			}
		}
		f.phase = phase // of quantiles
		return true
	}, "readings of the %s phase are no rows", phase)
}

func (f *goodFleet) quantiles(from int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return quantiles(f.took[f.phase][from:])
}

func (f *goodFleet) quantilesOf(phase string) string { return quantiles(f.took[phase]) }

func (f *goodFleet) p99(phase string) time.Duration {
	took := slices.Sorted(slices.Values(f.took[phase]))
	return took[len(took)*99/100]
}

func quantiles(took []time.Duration) string {
	if len(took) == 0 {
		return "none"
	}
	took = slices.Sorted(slices.Values(took))
	return fmt.Sprintf("%d, p50 %s, p99 %s, longest %s", len(took), took[len(took)/2].Round(time.Millisecond),
		took[len(took)*99/100].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

// finish stops the controllers.
func (f *goodFleet) finish(t *testing.T) {
	t.Helper()
	f.stop()
	f.done.Wait()
	assert.Zero(t, f.lost.Load(), "connections of good controllers")
	assert.Empty(t, f.failed)
}

// once requires that all that was acknowledged is there, once.
func (f *goodFleet) once(t *testing.T) {
	t.Helper()
	var there map[reading]int
	eventually(t, func() bool {
		var err error
		there, err = f.rowsSince(t.Context(), time.Time{})
		require.NoError(t, err)
		return len(lost(f.acked, there)) == 0
	}, "readings that were acknowledged are no rows")
	for r, n := range there {
		assert.Equal(t, 1, n, "%v", r)
		assert.True(t, f.acked[r], "%v comes from nobody", r)
	}
	count := func(query string, args ...any) (n int) {
		require.NoError(t, f.m.rows.QueryRow(t.Context(), query, args...).Scan(&n))
		return n
	}
	assert.Zero(t, count("SELECT count(*) FROM measurement_history"), "a second value for a moment")
	events := 0
	for mac, n := range f.events {
		events += n
		eventually(t, func() bool {
			return count("SELECT count(*) FROM device_event WHERE mac = $1", string(mac)) >= n
		}, "%s has fewer events than were acknowledged", mac)
	}
	assert.Equal(t, events, count("SELECT count(*) FROM device_event"), "each event is one row, and none is from an attacker")
	t.Logf("%d readings and %d events were acknowledged, and each is one row", len(f.acked), events)

	never := reading{f.sensor[mac], time.Now().UTC().Truncate(time.Microsecond)}
	f.acked[never] = true
	assert.Equal(t, []reading{never}, lost(f.acked, there), "the control: one that was never sent")
}

// lost are those that were acknowledged and are not there.
func lost(acked map[reading]bool, there map[reading]int) (missing []reading) {
	for r := range acked {
		if there[r] == 0 {
			missing = append(missing, r)
		}
	}
	return missing
}

// memory is the largest use of each program in each phase, in bytes. What PostgreSQL's
// processes share is not in it; what each has of its own is added up.
type memory struct {
	root   int
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex // guards phases
	phases []memoryPhase
}

type memoryPhase struct {
	name string
	peak map[string]int64 // by program
}

func (m *apartMesh) watchMemory() *memory {
	ctx, cancel := context.WithCancel(context.Background())
	w := &memory{root: m.Description.PID, cancel: cancel}
	w.done.Go(func() {
		for ctx.Err() == nil {
			now := resident(w.root)
			w.mu.Lock()
			if len(w.phases) > 0 {
				peak := w.phases[len(w.phases)-1].peak
				for program, bytes := range now {
					peak[program] = max(peak[program], bytes)
				}
			}
			w.mu.Unlock()
			time.Sleep(250 * time.Millisecond)
		}
	})
	return w
}

func (w *memory) begin(phase string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phases = append(w.phases, memoryPhase{phase, map[string]int64{}})
}

func (w *memory) peaks() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	peak := w.phases[len(w.phases)-1].peak
	var parts []string
	for _, program := range slices.Sorted(maps.Keys(peak)) {
		parts = append(parts, fmt.Sprintf("%s %d", program, peak[program]>>20))
	}
	return strings.Join(parts, ", ")
}

func (w *memory) stop(young int64) error {
	w.cancel()
	w.done.Wait()
	return unbounded(w.phases, young)
}

// unbounded says which program's memory hostile traffic drives up: to more than twice what it has
// in quiet phases and 64 MiB, or, since the first hostile phase, by more than a quarter and what
// a young process adds.
func unbounded(phases []memoryPhase, young int64) error {
	quiet, first := map[string]int64{}, map[string]int64{}
	for _, p := range phases {
		for program, bytes := range p.peak {
			if p.name == "quiet" {
				quiet[program] = max(quiet[program], bytes)
			} else {
				first[program] = cmp.Or(first[program], bytes)
			}
		}
	}
	var found []error
	for i, p := range phases {
		for program, bytes := range p.peak {
			if bytes > 2*quiet[program]+64<<20 {
				found = append(found, fmt.Errorf("%s: %d MiB in phase %d, at most %d in quiet ones", program, bytes>>20, i, quiet[program]>>20))
			}
			if p.name == "hostile" && bytes > first[program]*5/4+young {
				found = append(found, fmt.Errorf("%s: grows from %d MiB in the first hostile phase to %d in phase %d", program, first[program]>>20, bytes>>20, i))
			}
		}
	}
	return errors.Join(found...)
}

// TestUnbounded: the check of memory sees a peak, and what grows.
func TestUnbounded(t *testing.T) {
	t.Parallel()
	series := func(mib ...int64) (phases []memoryPhase) {
		for i, n := range mib {
			phases = append(phases, memoryPhase{[]string{"quiet", "hostile"}[i%2], map[string]int64{"broker": n << 20}})
		}
		return phases
	}
	require.NoError(t, unbounded(series(10, 20, 10, 22, 11, 21), 32<<20))
	require.ErrorContains(t, unbounded(series(10, 20, 10, 200, 11, 21), 32<<20), "200 MiB")
	require.ErrorContains(t, unbounded(series(100, 100, 150, 160, 200, 240), 32<<20), "grows")
}

// resident is what each program below root, and root, holds in memory for itself.
func resident(root int) map[string]int64 {
	type process struct {
		parent  int
		program string
		bytes   int64
	}
	all := map[int]process{}
	files, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		var p process
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		for line := range bytes.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
			switch value = strings.TrimSpace(value); name {
			case "Name":
				p.program = value
			case "PPid":
				p.parent, _ = strconv.Atoi(value)
			case "RssAnon":
				_, _ = fmt.Sscan(value, &p.bytes)
			}
		}
		all[pid] = p
	}
	sum := map[string]int64{"f2mesh": all[root].bytes << 10}
	for pid, p := range all {
		for up := p.parent; pid != root && up > 1; up = all[up].parent {
			if up == root {
				sum[p.program] += p.bytes << 10
				break
			}
		}
	}
	return sum
}
