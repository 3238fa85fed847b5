package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/send"
	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	operate "github.com/f2mesh/f2mesh/pkg/operate/command"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/registrar"
	"github.com/f2mesh/f2mesh/services/simulator"
)

const aStrike = ".access-control-mode.3.strike-1"

// commanded is a mesh whose controllers note what they carry out.
type commanded struct {
	*testMesh
	mu   sync.Mutex
	done []simulator.CarriedOut
}

func startCommanded(t *testing.T, controllers int, cfg simulator.Config) *commanded {
	t.Helper()
	m := &commanded{testMesh: startMesh(t, func(c *meshConfig) { c.Controllers = controllers })}
	lock, err := m.State.Lock()
	require.NoError(t, err)
	t.Cleanup(func() { _ = lock.Close() })
	require.NoError(t, mesh.NoteHolder(lock))
	require.NoError(t, m.State.Save(m.Describe()))
	t.Cleanup(m.play(fleet.Demo(m.Cfg.Controllers), cfg))
	eventually(t, func() bool { // who is connected reports its strike when asked
		_, err := m.request(t, "operator", string(m.mac()), "", nats.Header{outcome.HeaderPerson: {"root"}})
		return err == nil
	}, "no controller responds")
	return m
}

// mac is the first controller's.
func (m *commanded) mac() topic.MAC { return fleet.Demo(1)[0].MAC }

// play plays controllers until stop.
func (m *commanded) play(controllers []fleet.Controller, cfg simulator.Config) (stop func()) {
	cfg.Broker, cfg.CAFile, cfg.Devices = "ssl://"+m.Public(m.Ports().MQTTTLS), m.Authority.CAFile(), m.State.DevicesDir()
	cfg.OnCommand = func(c simulator.CarriedOut) {
		c.Body = slices.Clone(c.Body)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.done = append(m.done, c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _, _ = simulator.New(cfg, controllers, m.Log).Run(ctx) })
	return func() { cancel(); running.Wait() }
}

// actuations returns the commands with a body that were carried out, and forgets them.
func (m *commanded) actuations() (bodies []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.done {
		if len(c.Body) > 0 {
			bodies = append(bodies, string(c.Body))
		}
	}
	m.done = nil
	return bodies
}

// request sends a command to a strike by request, as a user of NATS.
func (m *commanded) request(t *testing.T, user, mac, body string, header nats.Header) (operate.Answer, error) {
	t.Helper()
	store := secret.NewStore(secret.Chain{m.SecretFiles()}, m.Log)
	nc, err := stream.Connect(stream.Config{URL: m.Nats.URL(), CAFile: m.Authority.CAFile()}, user, mesh.NatsCredential(store, user), m.Log)
	require.NoError(t, err)
	defer nc.Close()
	require.NoError(t, stream.WaitConnected(t.Context(), nc))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	reply, err := nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: "f2.do." + mac + aStrike, Data: []byte(body), Header: header})
	if err != nil {
		return operate.Answer{}, err
	}
	if text := reply.Header.Get(micro.ErrorHeader); text != "" {
		return operate.Answer{}, errors.New(text)
	}
	var a operate.Answer
	require.NoError(t, json.Unmarshal(reply.Data, &a))
	return a, nil
}

const peopleFile = `people:
  - {name: vera, role: viewer, may: [{controllers: ["*"]}]}
  - {name: olga, role: operator, may: [{names: ["*1"], components: ["strike-*"]}, {controllers: ["02f2*"]}]}
  - {name: adam, role: admin, may: [{controllers: ["*"]}]}
`

// TestCommandsOfPeople has people send commands by request and from the command line: each
// that is allowed, and each that is not, which is in the audit trail with its person.
func TestCommandsOfPeople(t *testing.T) {
	t.Parallel()
	m := startCommanded(t, 3, simulator.Config{Interval: 5 * time.Second})
	require.NoError(t, os.WriteFile(m.State.Path(access.FileName), []byte(peopleFile), 0o600))
	controllers := fleet.Demo(2)
	first, second := string(controllers[0].MAC), string(controllers[1].MAC)
	const on, off = `{"power-flag":1}`, `{"power-flag":0}`
	m.actuations()
	for _, c := range []struct {
		user, person, mac string
		want              outcome.Outcome
	}{
		{"console", "vera", second, outcome.Refused},
		{"console", "olga", first, outcome.Refused}, // its name is not known to the bridge
		{"console", "olga", second, outcome.Confirmed},
		{"console", "adam", first, outcome.Confirmed},
		{"operator", "adam", first, outcome.Confirmed},
		{"operator", "vera", first, outcome.Refused},
		{"console", "eve", first, outcome.Refused},
		{"console", "", first, outcome.Refused},
	} {
		a, err := m.request(t, c.user, c.mac, on, nats.Header{outcome.HeaderPerson: {c.person}})
		require.NoError(t, err)
		assert.Equal(t, c.want, a.Outcome, "%+v: %s", c, a.Detail)
		assert.Len(t, m.actuations(), map[outcome.Outcome]int{outcome.Confirmed: 1}[c.want], "%+v", c)
	}
	for _, user := range []string{"decoder", "health"} {
		_, err := m.request(t, user, first, on, nats.Header{outcome.HeaderPerson: {"adam"}})
		require.ErrorIs(t, err, nats.ErrNoResponders, user)
	}
	_, err := m.request(t, "console", "nonsense", on, nats.Header{outcome.HeaderPerson: {"adam"}})
	require.Error(t, err)

	cli := func(c send.Send) int {
		c.Timeout, c.Rate, c.MaxFailures = time.Minute, 10, 1
		err := c.Run(t.Context(), m.State, m.Log)
		failure, ok := errors.AsType[*operate.FailureError](err)
		if !ok {
			require.NoError(t, err)
			return operate.ExitDone
		}
		return failure.Code
	}
	at := func(person, mac, power string) send.Send {
		return send.Send{MAC: strings.ToUpper(mac), Connector: "J3", Component: "strike-1", Power: power, As: person}
	}
	m.actuations()
	assert.Equal(t, operate.ExitDone, cli(at("adam", first, "off")))
	assert.Equal(t, operate.ExitDone, cli(at("adam", first, "toggle")), "it is off")
	assert.Equal(t, operate.ExitDone, cli(at("adam", first, "toggle")), "it is on")
	assert.Equal(t, []string{off, on, off}, m.actuations(), "no controller gets a toggle")
	assert.Equal(t, operate.ExitNotDone, cli(at("vera", first, "on")))
	assert.Equal(t, operate.ExitDone, cli(at("olga", second, "on")))
	assert.Equal(t, operate.ExitNotDone, cli(at("vera", first, "")), "a viewer does not even ask a controller")
	assert.Len(t, m.actuations(), 1)
	many := send.Send{AllMatching: "component=strike-*", Power: "off", As: "adam"}
	many.DryRun = true
	assert.Equal(t, operate.ExitDone, cli(many))
	assert.Empty(t, m.actuations())
	many.DryRun, many.Yes = false, true
	assert.Equal(t, operate.ExitDone, cli(many))
	assert.NotEmpty(t, m.actuations())

	eventually(t, func() bool {
		events, err := m.trail(t)
		require.NoError(t, err)
		seen := map[string]bool{}
		for i := range events {
			if events[i].Action == registrar.CommandAction {
				seen[events[i].Actor+" "+map[bool]string{true: "refused", false: "done"}[strings.Contains(events[i].Detail, "refused")]] = true
			}
		}
		return seen["vera refused"] && seen["olga refused"] && seen["olga done"] && seen["adam done"] && seen["eve refused"] && !seen["vera done"]
	}, "attempts are missing in the audit trail")
}

// trail returns the audit trail.
func (m *commanded) trail(t *testing.T) (events []registrar.Event, err error) {
	t.Helper()
	registry, err := registrar.Open(t.Context(), m.State, m.DSN(mesh.RoleRegistrar, mesh.DatabaseRegistry), m.Issuer, m.Secrets, m.Log)
	if err != nil {
		return nil, err
	}
	defer registry.Close()
	return registrar.NewTrail(registry.Pool.Pool).Since(t.Context(), time.Time{}, "", 1000)
}

// TestStrikeLatency measures the time from a request for a strike to its outcome while
// readings come in. F2MESH_STRIKES sets how many, at 1,000 messages a second; the everyday run
// has few, and a loose bound.
func TestStrikeLatency(t *testing.T) {
	t.Parallel()
	strikes, perSecond := 50, 200
	if text := os.Getenv("F2MESH_STRIKES"); text != "" {
		var err error
		strikes, err = strconv.Atoi(text)
		require.NoError(t, err)
		perSecond = 1000
	}
	controllers := perSecond / 20
	m := startCommanded(t, controllers, simulator.Config{Rate: perSecond})
	received := func() (n uint64) {
		info, err := stream.Find(t.Context(), m.js, stream.Raw)
		require.NoError(t, err)
		return info.State.LastSeq
	}
	first, start := received(), time.Now()
	took := make([]time.Duration, strikes)
	var stored, carriedOut time.Duration
	for i := range took {
		sent := time.Now()
		reply, err := m.js.Conn().RequestMsg(&nats.Msg{
			Subject: "f2.do." + string(fleet.Demo(controllers)[i%controllers].MAC) + aStrike, Data: fmt.Appendf(nil, `{"power-flag":%d}`, i/controllers%2), Header: nats.Header{outcome.HeaderPerson: {"root"}},
		}, time.Minute)
		require.NoError(t, err)
		took[i] = time.Since(sent)
		var a operate.Answer
		require.NoError(t, json.Unmarshal(reply.Data, &a))
		require.Equal(t, outcome.Confirmed, a.Outcome, a.Detail)
		stored += a.Sent.Sub(a.Issued)
		carriedOut += a.At.Sub(a.Sent)
		pause(t.Context(), 20*time.Millisecond)
	}
	rate := float64(received()-first) / time.Since(start).Seconds()
	slices.Sort(took)
	t.Logf("%d strikes at %.0f messages a second: p50 %s, p99 %s, max %s", strikes, rate, took[strikes/2], took[strikes*99/100], took[strikes-1])
	t.Logf("on average %s from COMMANDS to the intent, %s from there to the report", stored/time.Duration(strikes), carriedOut/time.Duration(strikes))
	assert.Less(t, took[strikes/2], 2*time.Second)
}
