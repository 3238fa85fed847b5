package stream

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
)

// TestHandlerAfterClosed has handlers at work while the channel is closed, as
// nats.go allows: without the lock one of them sends on a closed channel.
func TestHandlerAfterClosed(t *testing.T) {
	t.Parallel()
	for range 200 {
		out := &outlet{messages: make(chan jetstream.Msg)}
		started, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			close(started)
			out.put(t.Context(), nil)
		}()
		<-started
		go out.close()
		for range out.messages {
		}
		<-done
		out.put(t.Context(), nil)
		assert.True(t, out.closed)
	}
}
