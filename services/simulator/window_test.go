package simulator

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// fill pushes n messages. The packet of each is its number.
func fill(w *window, n int) {
	for range n {
		s, id := w.next()
		s.packet = append(s.packet[:0], byte(id))
		w.push()
	}
}

func TestWindowAcknowledgesOnce(t *testing.T) {
	w := newWindow(4)
	fill(w, 3)
	require.Nil(t, w.find(1), "not written yet")
	out, fresh, repeated := w.gather(nil)
	require.Equal(t, []byte{1, 2, 3}, out)
	require.Equal(t, []int64{3, 0}, []int64{fresh, repeated})

	s := w.find(2)
	require.NotNil(t, s)
	w.release(s)
	require.Nil(t, w.find(2), "a second PUBACK")
	require.Equal(t, 1, w.free(), "the first message is still under way")
	for _, id := range []uint16{0, 4, 5, 65535} {
		require.Nil(t, w.find(id), "%d acknowledges nothing", id)
	}
	w.release(w.find(1))
	require.Equal(t, 3, w.free())
}

func TestWindowRepeatsWhatIsUnacknowledged(t *testing.T) {
	w := newWindow(4)
	fill(w, 4)
	_, _, _ = w.gather(nil)
	w.release(w.find(1))
	w.release(w.find(3))
	w.rewind()
	require.Nil(t, w.find(2), "a PUBACK before it is written again is not for it")
	fill(w, 1) // in the first one's slot
	out, fresh, repeated := w.gather(nil)
	require.Equal(t, []byte{2, 4, 1}, out)
	require.Equal(t, []int64{1, 2}, []int64{fresh, repeated})
	for _, id := range []uint16{2, 4, 1} {
		w.release(w.find(id))
	}
	require.True(t, w.empty())
}

func TestWindowGoesRound(t *testing.T) {
	for size := 1; size <= 5; size++ {
		w := newWindow(size)
		for range 7 {
			fill(w, w.free())
			out, fresh, _ := w.gather(nil)
			require.EqualValues(t, size, fresh)
			for _, id := range out {
				w.release(w.find(uint16(id)))
			}
			require.True(t, w.empty())
			<-w.wake
		}
	}
}

func TestWindowForgetsLargePackets(t *testing.T) {
	w := newWindow(1)
	s, _ := w.next()
	s.packet = make([]byte, maxSlot+1)
	w.push()
	_, _, _ = w.gather(nil)
	w.release(w.find(1))
	require.Nil(t, w.slots[0].packet)
}

func TestWindowBoundsCommands(t *testing.T) {
	w := newWindow(1)
	for i := range maxAnswers {
		require.True(t, w.take(command{period: i}, true, 0))
	}
	require.False(t, w.take(command{}, true, 7), "full")
	require.Equal(t, []byte{typePuback, 2, 0, 7}, w.appendAcks(nil), "acknowledged all the same")
	require.Empty(t, w.appendAcks(nil))
	require.Equal(t, []command{{period: 0}, {period: 1}}, w.commands(2))
	require.Len(t, w.commands(1000), maxAnswers-2)
	require.Empty(t, w.commands(1))
}
