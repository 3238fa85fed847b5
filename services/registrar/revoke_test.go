package registrar

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// traffic is devices that publish all the time, and what of it arrives.
type traffic struct {
	last []atomic.Int64 // when a device's last message arrived, in nanoseconds of Unix time
	seen []atomic.Int64
	lost []atomic.Bool
	// tries counts how often a device has tried to connect.
	tries []atomic.Int64
	stop  chan struct{}
	wg    sync.WaitGroup
}

func (b *bench) publishAll(n int) *traffic {
	b.t.Helper()
	f := &traffic{last: make([]atomic.Int64, n), seen: make([]atomic.Int64, n), lost: make([]atomic.Bool, n), tries: make([]atomic.Int64, n), stop: make(chan struct{})}
	index := map[string]int{}
	for i := range n {
		index[topicOf(i)] = i
	}
	b.listen("tele/#", func(m mqtt.Message) {
		if i, ok := index[m.Topic()]; ok {
			f.last[i].Store(time.Now().UnixNano())
			f.seen[i].Add(1)
		}
	})
	for i := range n {
		options := b.options(b.pair(macOf(i))).SetAutoReconnect(true).SetMaxReconnectInterval(50 * time.Millisecond)
		options.SetConnectionAttemptHandler(func(_ *url.URL, config *tls.Config) *tls.Config {
			f.tries[i].Add(1)
			return config
		})
		options.OnConnectionLost = func(mqtt.Client, error) { f.lost[i].Store(true) }
		client := b.connect(options)
		f.wg.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-f.stop:
					return
				case <-tick.C:
					client.Publish(topicOf(i), 1, false, "x").WaitTimeout(time.Millisecond)
				}
			}
		})
	}
	return f
}

func topicOf(i int) string { return fmt.Sprintf("tele/f2-%s/sensor-mode/J1/sensor-1", macOf(i)) }

// Twenty devices of forty are revoked while all publish, and try to come back. The
// last message of each arrives within two seconds; the others do not notice.
func TestRevokeWhilePublishing(t *testing.T) { //nolint:paralleltest // it measures
	b := newBench(t).start()
	const fleet, gone = 40, 20
	b.registerAll(requests(fleet)...)
	f := b.publishAll(fleet)
	require.Eventually(t, func() bool {
		for i := range f.seen {
			if f.seen[i].Load() < 3 {
				return false
			}
		}
		return true
	}, patience, 10*time.Millisecond, "the control: all publish")

	var out []topic.MAC
	for i := range gone {
		out = append(out, macOf(i))
	}
	began := time.Now()
	_, err := b.Revoke(t.Context(), operator, KeyCompromise, out...)
	require.NoError(t, err)
	took := time.Since(began)
	returned := time.Now()
	var before []int64
	for i := range fleet {
		before = append(before, f.seen[i].Load())
		f.tries[i].Store(0)
	}
	require.Eventually(t, func() bool {
		for i := range fleet {
			if i < gone && f.tries[i].Load() < 5 || i >= gone && f.seen[i].Load() < before[i]+25 {
				return false
			}
		}
		return true
	}, patience, 10*time.Millisecond, "the revoked try to come back, the others publish")
	for i := range fleet {
		last := time.Unix(0, f.last[i].Load())
		if i < gone {
			assert.Less(t, last.Sub(began), 2*time.Second, "%d is accepted too long", i)
			assert.True(t, f.lost[i].Load(), "%d keeps its session", i)
			assert.False(t, last.After(returned.Add(100*time.Millisecond)), "%d is accepted after Revoke has returned", i)
		} else {
			assert.False(t, f.lost[i].Load(), "%d lost its session", i)
			assert.Less(t, time.Since(last), time.Second, "%d goes on", i)
		}
	}
	close(f.stop)
	f.wg.Wait()
	var latest time.Duration
	for i := range gone {
		latest = max(latest, time.Unix(0, f.last[i].Load()).Sub(began))
	}
	t.Logf("revoking %d of %d took %s, the last message came %s after it began", gone, fleet, took, latest)
	b.whole()
}
