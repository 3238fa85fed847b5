package main

import (
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

func TestSayWaiting(t *testing.T) {
	t.Parallel()
	held := newTrouble(slog.New(slog.DiscardHandler))
	log := slog.New(held).With("service", "bridge").WithGroup("g")
	in, out := io.Pipe()
	stop := held.sayWaiting(out, "bridge", "f2mesh.log", time.Millisecond)
	lines := make(chan string)
	go func() {
		buffer := make([]byte, 1000)
		for {
			n, err := in.Read(buffer)
			if err != nil {
				close(lines)
				return
			}
			lines <- string(buffer[:n])
		}
	}()
	assert.Equal(t, "  bridge     waiting; the log is in f2mesh.log\n", <-lines)
	log.Info("of no interest")
	log.Warn("no password for MQTT", "error", errors.New("logging in to Vault: bridge.role_id is not there"))
	assert.Equal(t, "  bridge     waiting: no password for MQTT: logging in to Vault: bridge.role_id is not there\n", <-lines)
	stop()
	require.NoError(t, out.Close())
	_, more := <-lines
	assert.False(t, more)
}

// TestVaultWithoutLogin has a VAULT_ADDR as many shells have it, and no login yet:
// the chain goes on to the files, with its alarm.
func TestVaultWithoutLogin(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "")
	st := secretsOf(t, "mqtt_password")
	flags := vaultFlags{Config: vault.Config{Addr: "http://127.0.0.1:1", Mount: "secret", AuthDir: st.path("vault")}}
	held := newTrouble(slog.New(slog.DiscardHandler))
	k, err := newKeeper(&flags, st, slog.New(held))
	require.NoError(t, err)
	defer k.close()
	v, err := k.Lookup(t.Context(), "mqtt_password")
	require.NoError(t, err)
	assert.Equal(t, "of-file", v.Reveal())
	assert.Contains(t, held.take(), "unset VAULT_ADDR")

	service := secretFlags{vaultFlags: flags}
	store, done, err := service.store("bridge", secret.Files(st.secrets()), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer done()
	v, err = store.Get(t.Context(), "mqtt_password")
	require.NoError(t, err)
	assert.Equal(t, "of-file", v.Reveal())
	require.Len(t, store.Status(), 1)
	assert.True(t, store.Status()[0].Downgraded, "which is the alarm")
	assert.Contains(t, store.Status()[0].Problem, "vault bootstrap")
}
