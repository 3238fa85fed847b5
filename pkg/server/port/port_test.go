package port

import (
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const host = "127.0.0.1"

func TestPick(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", host+":0") //nolint:noctx // a local port
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	number := taken.Addr().(*net.TCPAddr).Port
	assert.False(t, Free(host, number))

	for _, preferred := range []int{0, number} {
		picked, err := Pick(host, preferred)
		require.NoError(t, err)
		assert.NotEqual(t, number, picked)
		assert.GreaterOrEqual(t, picked, lowest)
		assert.Less(t, picked, ephemeralStart(), "not one that an outgoing connection may take")
		again, err := Pick(host, picked)
		require.NoError(t, err)
		assert.Equal(t, picked, again, "a free preferred port is taken")
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	for _, one := range []struct {
		fixed        bool
		taken, calls int
		err          error
	}{
		{false, 0, 1, nil}, {false, 4, 5, nil}, {false, 9, 5, ErrTaken}, {true, 0, 1, nil}, {true, 9, 1, ErrTaken},
	} {
		calls := 0
		got, err := Retry(one.fixed, func() (int, error) {
			if calls++; calls <= one.taken {
				return 0, fmt.Errorf("starting: %w", ErrTaken)
			}
			return calls, nil
		})
		require.ErrorIs(t, err, one.err)
		assert.Equal(t, one.calls, calls)
		if err == nil {
			assert.Equal(t, calls, got)
		}
	}
	calls := 0
	_, err := Retry(false, func() (int, error) { calls++; return 0, net.ErrClosed })
	require.ErrorIs(t, err, net.ErrClosed)
	assert.Equal(t, 1, calls, "another error")
}

func TestPickFailsWhereNothingCanBeBound(t *testing.T) {
	t.Parallel()
	_, err := Pick("192.0.2.1", 0) // TEST-NET-1: no machine has it
	require.ErrorContains(t, err, "is 192.0.2.1 an address of this machine?")
}
