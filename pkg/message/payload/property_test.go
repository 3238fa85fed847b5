package payload_test

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/payload"
)

// requireCompact requires that a state is an object for jsonb, without white space between
// tokens and without a timestamp.
func requireCompact(t require.TestingT, state []byte) {
	var compact bytes.Buffer
	require.NoError(t, json.Compact(&compact, state))
	require.Equal(t, compact.String(), string(state))
	var members map[string]any
	require.NoError(t, json.Unmarshal(state, &members))
	require.NotEmpty(t, members)
	require.NotContains(t, members, "timestamp")
	require.False(t, holdsNUL(members))
}

func holdsNUL(v any) bool {
	switch v := v.(type) {
	case string:
		return bytes.ContainsRune([]byte(v), 0)
	case []any:
		if slices.ContainsFunc(v, holdsNUL) {
			return true
		}
	case map[string]any:
		for name, member := range v {
			if holdsNUL(name) || holdsNUL(member) {
				return true
			}
		}
	}
	return false
}

// TestCompactNoticesABadState is the control of requireCompact.
func TestCompactNoticesABadState(t *testing.T) {
	for _, state := range []string{``, `{}`, `[1]`, `{"a": 1}`, `{"a":1`, `{"timestamp":1}`, `{"a":["\u0000"]}`, `{"a":{"\u0000":1}}`} {
		recorder := new(recorder)
		func() {
			defer func() { _ = recover() }() // FailNow does not end the function here
			requireCompact(recorder, []byte(state))
		}()
		require.True(t, recorder.failed, state)
	}
}

type recorder struct{ failed bool }

func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) FailNow()              { r.failed = true }

// TestNumbersAreExact: a float64 that was sent is parsed to the same float64.
func TestNumbersAreExact(t *testing.T) {
	var p payload.Parser
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Float64().Filter(func(x float64) bool { return !math.IsInf(x, 0) && !math.IsNaN(x) }).Draw(t, "value")
		label := rapid.StringMatching(`[A-Za-z0-9 é°\\"/%-]{1,30}`).Filter(func(s string) bool {
			return len(s) <= payload.MaxNameLength && !bytes.EqualFold([]byte(s), []byte("data"))
		}).Draw(t, "label")
		body, err := json.Marshal(map[string]float64{label: want})
		require.NoError(t, err)
		got, err := p.Parse(on(t, "tele/sensor-1"), body)
		require.NoError(t, err)
		require.Equal(t, []payload.Number{{Label: label, Value: want}}, got.Numbers)
	})
}

// TestStateKeepsMembers: a state has the same members as the body.
func TestStateKeepsMembers(t *testing.T) {
	var p payload.Parser
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.MapOfN(rapid.StringMatching(`[b-rw-z]{1,8}`), values(3), 0, 6).Draw(t, "members")
		members["status"] = rapid.Bool().Draw(t, "status")
		body, err := json.MarshalIndent(members, " ", "\t")
		require.NoError(t, err)
		got, err := p.Parse(on(t, "tele/strike-1"), body)
		require.NoError(t, err)
		require.JSONEq(t, string(body), string(got.State))
		requireCompact(t, got.State)
	})
}

// values draws any JSON value nested up to depth.
func values(depth int) *rapid.Generator[any] {
	scalars := []*rapid.Generator[any]{
		rapid.Just[any](nil),
		rapid.Bool().AsAny(),
		rapid.Int32().AsAny(),
		rapid.Float64Range(-1e300, 1e300).AsAny(),
		rapid.StringMatching(`[ -~é\n\t\x01]{0,12}`).AsAny(),
	}
	if depth == 0 {
		return rapid.OneOf(scalars...)
	}
	return rapid.OneOf(append(scalars,
		rapid.SliceOfN(values(depth-1), 0, 4).AsAny(),
		rapid.MapOfN(rapid.StringMatching(`[a-z "]{0,6}`), values(depth-1), 0, 4).AsAny(),
	)...)
}
