package stream

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzParseMessage(f *testing.F) {
	for _, text := range []string{
		`{"message":{"subject":"f2.raw.test","seq":7,"hdrs":"TkFUUy8xLjANCkE6IGINCg0K","data":"e30=","time":"2026-11-24T10:00:00Z"}}`,
		`{"message":{"subject":"f2.raw.test","seq":7,"hdrs":"AAAA","data":"e30="}}`,
		`{"error":{"code":404,"err_code":10037,"description":"no message found"}}`, `{"message":null}`, `{}`, `[`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMessage(data)
		require.Equal(t, err == nil, m != nil)
		if m != nil {
			require.NotNil(t, m.Header)
			_ = placeOf(m)
		}
	})
}

// FuzzSnapshot parses what a backup's manifest says of a stream.
func FuzzSnapshot(f *testing.F) {
	for _, text := range []string{
		`{"name":"RAW","messages":1,"consumers":[{"name":"decoder","ack_floor":1}],"incarnation":7,"config":{"name":"RAW","metadata":{"a":"b"}},"state":{}}`,
		`{"incarnation":7,"config":[]}`, `{"incarnation":7,"config":{"metadata":1}}`, `{"incarnation":7,"config":null}`, `{}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Snapshot
		if json.Unmarshal(data, &s) != nil {
			return
		}
		config, err := s.config()
		if err != nil || s.Incarnation == 0 {
			return
		}
		metadata, ok := config["metadata"].(map[string]any)
		require.True(t, ok)
		require.Equal(t, strconv.FormatUint(s.Incarnation, 10), metadata[incarnationKey])
	})
}

// A message whose header was damaged must not stop a reader of many messages.
func TestParseMessageWithDamagedHeader(t *testing.T) {
	t.Parallel()
	m, err := parseMessage([]byte(`{"message":{"subject":"f2.raw.test","seq":7,"hdrs":"AAAA","data":"e30="}}`))
	require.NoError(t, err)
	require.Empty(t, m.Header)
	require.JSONEq(t, "{}", string(m.Data))
	m, err = parseMessage([]byte(`{"message":{"subject":"f2.raw.test","seq":7,"hdrs":"TkFUUy8xLjANCkE6IGINCg0K","data":"e30="}}`))
	require.NoError(t, err)
	require.Equal(t, "b", m.Header.Get("A"), "the control")
}
