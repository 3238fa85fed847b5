package outcome_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
)

func TestMessage(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 29, 10, 0, 0, 123456789, time.UTC)
	want := outcome.Result{
		Sequence: 42, ID: "any\r\nbytes \xff", Command: "f2.command.e4fd45f654be.access-control-mode.3.reader-1.success",
		Outcome: outcome.Confirmed, Detail: "detail", Issued: at, Sent: at.Add(time.Second), At: at.Add(2 * time.Second), State: []byte(`{"status":true}`),
	}
	m, err := want.Msg()
	require.NoError(t, err)
	assert.Equal(t, "f2.result.e4fd45f654be.access-control-mode.3.reader-1.success", m.Subject)
	assert.Equal(t, "42", m.Header.Get(outcome.HeaderSequence))
	assert.Equal(t, "confirmed", m.Header.Get(outcome.HeaderOutcome))
	got, err := outcome.Parse(m.Header, m.Data)
	require.NoError(t, err)
	want.ID = "any\r\nbytes \uFFFD"
	assert.Equal(t, want, got)

	again := want
	again.At, again.Detail = at.Add(time.Hour), "told differently"
	m2, err := again.Msg()
	require.NoError(t, err)
	assert.Equal(t, m.Header.Get(nats.MsgIdHdr), m2.Header.Get(nats.MsgIdHdr), "one outcome is one message")
	again.Issued = at.Add(1)
	m2, err = again.Msg()
	require.NoError(t, err)
	assert.NotEqual(t, m.Header.Get(nats.MsgIdHdr), m2.Header.Get(nats.MsgIdHdr), "a stream that was made anew counts from 1 again")

	_, err = outcome.Parse(nats.Header{}, m.Data)
	require.Error(t, err)
	_, err = outcome.Parse(m.Header, []byte("?"))
	require.Error(t, err)
}

func TestFinal(t *testing.T) {
	t.Parallel()
	for o, final := range map[outcome.Outcome]bool{
		outcome.Sent: false, outcome.Unknown: false, outcome.Refused: true, outcome.Expired: true, outcome.Delivered: true, outcome.Confirmed: true,
	} {
		assert.Equal(t, final, o.Final(), o)
	}
}
