package progress

import (
	"bytes"
	"sync"
	"testing"

	"github.com/schollz/progressbar/v3"
	"github.com/stretchr/testify/assert"
)

// TestNoTerminal: tests have none, and so nothing is shown.
func TestNoTerminal(t *testing.T) {
	t.Parallel()
	for _, bar := range []*Bar{Count("messages"), Bytes("checking")} {
		bar.Set(1, 2)
		bar.Finish()
		assert.Zero(t, bar.drawn.Load())
	}
}

func TestBarIsDrawnOnceInAWhile(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	bar := &Bar{bar: progressbar.NewOptions64(-1, progressbar.OptionSetWriter(&out), progressbar.OptionShowCount())}
	var group sync.WaitGroup
	for i := range uint64(100) {
		group.Go(func() { bar.Set(i+1, 100) })
	}
	group.Wait()
	assert.Contains(t, out.String(), "/100")
	assert.EqualValues(t, 100, bar.bar.GetMax64())
	assert.LessOrEqual(t, bytes.Count(out.Bytes(), []byte("/100")), 10)
	bar.Finish()
}
