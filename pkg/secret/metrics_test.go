package secret_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

func TestStoreMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := newLink("vault", map[string]string{"a": "1"})
		store := running(t, secret.Chain{vault}, quiet())
		reg := prometheus.NewPedanticRegistry()
		require.NoError(t, reg.Register(store))
		_, err := store.Get(t.Context(), "absent")
		require.Error(t, err)
		reveal(t, store, "a")
		expect := func(downgraded int) {
			require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(`
# HELP f2mesh_secret_downgraded 1 while a secret's last good value is in use because its source does not answer, or a higher one cannot be asked.
# TYPE f2mesh_secret_downgraded gauge
f2mesh_secret_downgraded{secret="a"} %d
# HELP f2mesh_secret_info Where a secret's current value is from; always 1.
# TYPE f2mesh_secret_info gauge
f2mesh_secret_info{secret="a",source="vault",version="v-1"} 1
`, downgraded))))
		}
		expect(0)
		vault.set(nil, errDown)
		look(store)
		expect(1)
		vault.set(map[string]string{"a": "1"}, nil)
		look(store)
		expect(0)
	})
}

// TestStoreTells: what happens is logged once each time, and never a value.
func TestStoreTells(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		vault := newLink("vault", map[string]string{"a": "x"})
		store := running(t, secret.Chain{fixed{vault}, newLink("file", map[string]string{"a": password})}, slog.New(slog.NewTextHandler(&out, nil)))
		reveal(t, store, "a")
		for range 3 {
			vault.set(nil, errDown)
			look(store)
			look(store)
			vault.set(map[string]string{"a": "x"}, nil)
			look(store)
		}
		synctest.Wait()
		assert.Equal(t, 3, strings.Count(out.String(), "its last good value stays in use"), out.String())
		assert.Equal(t, 3, strings.Count(out.String(), "secret is answered again"))
		assert.Equal(t, 1, strings.Count(out.String(), "secret resolved"))
		status, err := json.Marshal(store.Status())
		require.NoError(t, err)
		v, err := store.Get(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, password, v.Reveal(), "the control: it is what must not be there")
		for _, printed := range []string{out.String(), string(status), fmt.Sprintf("%v %+v %#v", store, store, store)} {
			assert.NotContains(t, printed, "hunter2")
		}
	})
}

// fixed gives password for whatever its link holds.
type fixed struct{ *link }

func (f fixed) Lookup(ctx context.Context, name string) (secret.Value, error) {
	v, err := f.link.Lookup(ctx, name)
	if err != nil {
		return v, err
	}
	return secret.NewValue(password, v.Source(), v.Version()).WithUsername("user"), nil
}
