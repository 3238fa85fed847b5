package natsserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

func admin(t *testing.T, s *Server, cfg Config) Admin {
	t.Helper()
	return Admin{
		Dir: cfg.Dir, URL: s.URL(), CAFile: cfg.CAFile,
		Sys: func(context.Context) (string, string, error) { return Sys, cfg.Passwords[Sys], nil },
	}
}

// logsIn requires a user to be let in, or not. While the server reloads it refuses
// whoever is just logging in.
func logsIn(t *testing.T, a Admin, want bool, user, password string) {
	t.Helper()
	require.Eventually(t, func() bool {
		in, err := a.LogIn(t.Context(), user, password)
		return err == nil && in == want
	}, 10*time.Second, 10*time.Millisecond, user)
}

// watch counts the disconnections of a connection.
func watch(t *testing.T, s *Server, cfg Config, user string, options ...nats.Option) (nc *nats.Conn, lost <-chan struct{}) {
	t.Helper()
	closed := make(chan struct{}, 100)
	options = append(options, nats.DisconnectErrHandler(func(*nats.Conn, error) { closed <- struct{}{} }))
	return connect(t, s, cfg, user, options...), closed
}

func TestSetPassword(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	a := admin(t, s, cfg)
	others := map[string]<-chan struct{}{}
	_, others["in-process"] = watch(t, s, cfg, Decoder, nats.InProcessServer(s.InProcess()))
	for _, user := range Users() {
		if user != Bridge {
			_, others[user] = watch(t, s, cfg, user)
		}
	}
	_, lost := watch(t, s, cfg, Bridge, nats.NoReconnect())
	alternate := credential.Alternate(Bridge)
	logsIn(t, a, false, alternate, "")

	require.NoError(t, a.SetPassword(t.Context(), alternate, "new"))
	logsIn(t, a, true, alternate, "new")
	logsIn(t, a, true, Bridge, cfg.Passwords[Bridge])
	assert.Empty(t, lost, "both work")
	count := func(want int, user string) {
		require.Eventually(t, func() bool { // the server may be closing what try opened
			n, err := a.Sessions(t.Context(), user)
			return err == nil && n == want
		}, 10*time.Second, 10*time.Millisecond, user)
	}
	count(1, Bridge)
	count(0, alternate)

	require.NoError(t, a.SetPassword(t.Context(), Bridge, ""))
	logsIn(t, a, false, Bridge, cfg.Passwords[Bridge])
	logsIn(t, a, true, alternate, "new")
	select {
	case <-lost:
	case <-time.After(10 * time.Second):
		require.Fail(t, "a connection of the retired user stays")
	}
	count(0, Bridge)
	for name, lost := range others {
		assert.Empty(t, lost, "%s lost its connection", name)
	}
}

// What a service has on its way while another's password changes is not touched.
func TestSetPasswordDuringTraffic(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	operator, err := jetstream.New(connect(t, s, cfg, Operator))
	require.NoError(t, err)
	_, err = operator.CreateStream(t.Context(), streamConfig(t, "raw"))
	require.NoError(t, err)
	var declared jetstream.ConsumerConfig
	unmarshal(t, "consumer_raw_decoder.json", &declared)
	_, err = operator.CreateConsumer(t.Context(), "RAW", declared)
	require.NoError(t, err)
	a := admin(t, s, cfg)
	nc, lost := watch(t, s, cfg, Decoder)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	consumer, err := js.Consumer(t.Context(), "RAW", "decoder")
	require.NoError(t, err)
	var mu sync.Mutex
	received := 0
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		mu.Lock()
		defer mu.Unlock()
		received++
		for m.DoubleAck(t.Context()) != nil && t.Context().Err() == nil { // lost in the reload
			time.Sleep(time.Millisecond)
		}
	})
	require.NoError(t, err)
	defer consuming.Stop()
	bridge, err := jetstream.New(connect(t, s, cfg, Bridge))
	require.NoError(t, err)

	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 10 {
			assert.NoError(t, a.SetPassword(t.Context(), credential.Alternate(Writer), fmt.Sprint("new", n)))
		}
	}()
	sent := 0
	for running := true; running; sent++ {
		_, err := bridge.Publish(t.Context(), fmt.Sprintf("f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-%d", sent), []byte("{}"), jetstream.WithRetryAttempts(100))
		require.NoError(t, err)
		select {
		case <-done:
			running = false
		default:
		}
	}
	require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return received == sent }, 10*time.Second, 10*time.Millisecond)
	assert.Empty(t, lost)
}

// Two rotations at a time lose neither's password.
func TestSetPasswordConcurrently(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	var group sync.WaitGroup
	a := admin(t, s, cfg)
	for _, user := range Users() {
		group.Go(func() { assert.NoError(t, a.SetPassword(t.Context(), credential.Alternate(user), "new "+user)) })
	}
	group.Wait()
	for _, user := range Users() {
		logsIn(t, a, true, credential.Alternate(user), "new "+user)
		logsIn(t, a, true, user, cfg.Passwords[user])
	}
	info, err := os.Stat(filepath.Join(cfg.Dir, passwordsFile))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestSetPasswordOfNobody(t *testing.T) {
	t.Parallel()
	err := Admin{Dir: t.TempDir()}.SetPassword(t.Context(), "stranger", "x")
	require.ErrorContains(t, err, `no user "stranger"`)
}

// A user and its alternate may do the same.
func TestAlternatesMayDoTheSame(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	require.NoError(t, os.MkdirAll(cfg.Dir, 0o700))
	file, err := cfg.withDefaults().writeFiles(4222)
	require.NoError(t, err)
	options, err := server.ProcessConfigFile(file)
	require.NoError(t, err)
	users := map[string]*server.User{}
	for _, user := range options.Users {
		users[user.Username] = user
	}
	require.Len(t, users, len(logins()))
	for _, user := range Users() {
		first, second := users[user], users[credential.Alternate(user)]
		assert.Nil(t, first.Permissions, user)
		assert.Nil(t, second.Permissions, user)
		assert.Same(t, first.Account, second.Account, user)
		assert.Equal(t, AccountOf(user), first.Account.Name)
		assert.Equal(t, InboxPrefix(user), InboxPrefix(second.Username))
	}
	assert.NotSame(t, users[Bridge].Account, users[Writer].Account, "the control")
}
