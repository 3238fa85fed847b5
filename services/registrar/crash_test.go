package registrar

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// The test program runs itself as the process that is to die: these name the place,
// the operation, and what to work on.
const (
	crashVariable     = "F2MESH_TEST_CRASH"
	operationVariable = "F2MESH_TEST_CRASH_OPERATION"
	dirVariable       = "F2MESH_TEST_CRASH_DIR"
	dsnVariable       = "F2MESH_TEST_CRASH_DSN"
)

// operations are what dies half-way, and is done again afterwards.
var operations = map[string]func(context.Context, *Registrar) error{
	"register": func(ctx context.Context, r *Registrar) error {
		_, err := r.Register(ctx, operator, requests(5)...)
		return err
	},
	"force": func(ctx context.Context, r *Registrar) error {
		_, err := r.Register(ctx, operator, Request{MAC: device, SerialNumber: "SN-9", Force: true})
		return err
	},
	"renew": func(ctx context.Context, r *Registrar) error {
		_, err := r.Renew(ctx, operator, device, nil, nil)
		return err
	},
	"revoke": func(ctx context.Context, r *Registrar) error {
		_, err := r.Revoke(ctx, operator, KeyCompromise, device)
		return err
	},
}

// crashAt is the process that dies: with SIGKILL, so that nothing of it is tidied up.
func crashAt(place string) int {
	ctx := context.Background()
	r, err := open(ctx, os.Getenv(dirVariable), os.Getenv(dsnVariable), slog.New(slog.DiscardHandler))
	if err != nil {
		return 2
	}
	r.reached = func(at string) {
		if at == place {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	name := os.Getenv(operationVariable)
	operation, ok := operations[name]
	if !ok { // a list to import
		operation = func(ctx context.Context, r *Registrar) error {
			list, err := os.Open(name)
			if err != nil {
				return err
			}
			return r.Import(ctx, operator, list, func(ImportLine) {})
		}
	}
	if err := operation(ctx, r); err != nil {
		return 3
	}
	return 0
}

// crash runs an operation in a process of its own, which dies at place, if it comes
// there.
func (b *bench) crash(operation, place string) (died bool) {
	b.t.Helper()
	self, err := os.Executable()
	require.NoError(b.t, err)
	cmd := exec.CommandContext(b.t.Context(), self)
	cmd.Env = append(os.Environ(), crashVariable+"="+place, operationVariable+"="+operation, dirVariable+"="+b.dir, dsnVariable+"="+b.dsn)
	err = cmd.Run()
	if err == nil {
		return false
	}
	var exit *exec.ExitError
	require.ErrorAs(b.t, err, &exit)
	status, ok := exit.Sys().(syscall.WaitStatus)
	require.True(b.t, ok)
	require.True(b.t, status.Signaled(), "it failed: %v", err)
	return true
}

// Wherever an operation dies, it has happened whole or not at all once the next one
// has looked after it.
func TestCrashLeavesNothingHalfDone(t *testing.T) {
	t.Parallel()
	for _, one := range []struct {
		operation, place string
		happened         bool // before it is done again
		half             bool // what it leaves does not agree, the control
	}{
		{"register", "staged", false, true},
		{"register", "decided", false, true},
		{"register", "committed", true, true},
		{"register", "placed", true, true},
		{"register", "in force", true, false},
		{"force", "decided", false, true},
		{"force", "committed", true, true},
		{"force", "bundle away", true, true},
		{"force", "placed", true, true},
		{"force", "kicked", true, true},
		{"renew", "bundle away", true, true},
		{"revoke", "decided", false, false},
		{"revoke", "committed", true, true},
		{"revoke", "in force", true, true},
		{"revoke", "kicked", true, true},
	} {
		t.Run(one.operation+" "+one.place, func(t *testing.T) {
			t.Parallel()
			b := newBench(t).start()
			b.registerAll(Request{MAC: device, SerialNumber: "SN-1"}, Request{MAC: neighbor, SerialNumber: "SN-2"})
			old := b.pair(device)
			before := b.whole()
			require.True(t, b.crash(one.operation, one.place))
			rows, problems := b.look()
			assert.Equal(t, one.happened, !assert.ObjectsAreEqual(before, rows))
			assert.Equal(t, one.half, len(problems) > 0, "%v", problems)

			_, err := b.Refresh(t.Context())
			require.NoError(t, err)
			rows = b.whole()
			assert.Equal(t, one.happened, !assert.ObjectsAreEqual(before, rows))
			assert.Equal(t, one.happened && (one.operation == "force" || one.operation == "revoke"), !b.admitted(old))
			assert.True(t, b.publishes(neighbor))

			require.NoError(t, operations[one.operation](t.Context(), b.Registrar), "done again")
			b.whole()
			if one.operation == "register" {
				assert.Equal(t, 2+5, b.events(Issue), "nobody is registered twice")
				assert.True(t, b.publishes(topic.MAC("e4fd45000003")))
			}
		})
	}
}

func TestCrashProcessControl(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	assert.False(t, b.crash("register", "nowhere"), "without a place to die it comes to its end")
	assert.Len(t, b.whole(), 5)
}
