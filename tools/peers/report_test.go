package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	assert.Zero(t, median(nil))
	assert.InDelta(t, 3, median([]float64{9, 3, 1}), 0)
	assert.InDelta(t, 2.5, median([]float64{4, 1, 3, 2}), 0)
}

func TestFiguresAreForEachMessage(t *testing.T) {
	t.Parallel()
	before := usage{own: 1, mosquitto: 2, postgres: 3, peak: 5 << 20}
	after := usage{own: 1.5, mosquitto: 2.2, postgres: 3.1, peak: 64 << 20}
	f := figuresOf(before, after, 4, 10_000)
	for i, want := range []float64{2500, 50, 20, 10, 80, 64} {
		assert.InDelta(t, want, *f.fields()[i], 1e-9, "figure %d", i)
	}
}

// run100 is a complete run of 100 messages whose figures are all the same.
func run100(system string, pair int, figure float64) result {
	r := result{System: system, Mode: live, Pair: pair, Messages: 100, Written: 100}
	for _, f := range r.fields() {
		*f = figure
	}
	return r
}

// TestRatioIsThatOfPairs: a machine that is slow for one pair does not change the ratio.
func TestRatioIsThatOfPairs(t *testing.T) {
	t.Parallel()
	s := summarize(live, []result{
		run100("f2mesh", 1, 20), run100("Telegraf", 1, 10), run100("Telegraf", 2, 1), run100("f2mesh", 2, 2), run100("f2mesh", 3, 200), run100("Telegraf", 3, 50),
	})
	assert.Equal(t, 3, s.Pairs)
	for i := range s.Ratio.fields() {
		assert.InDelta(t, 20, *s.F2mesh.fields()[i], 0)
		assert.InDelta(t, 10, *s.Telegraf.fields()[i], 0)
		assert.InDelta(t, 2, *s.Ratio.fields()[i], 0)
	}
}

// TestIncompleteRunsDoNotCount has a run that lost messages, and one that doubled some.
func TestIncompleteRunsDoNotCount(t *testing.T) {
	t.Parallel()
	lost, doubled := run100("f2mesh", 1, 1), run100("Telegraf", 2, 1)
	lost.Written, doubled.Written = 97, 104
	r := report{Runs: []result{lost, run100("Telegraf", 1, 1), run100("f2mesh", 2, 1), doubled, run100("f2mesh", 3, 30), run100("Telegraf", 3, 10)}}
	s := summarize(live, r.Runs)
	assert.Equal(t, 1, s.Pairs)
	assert.InDelta(t, 3, s.Ratio.Rate, 0)
	require.ErrorContains(t, r.incomplete(), "2 runs are incomplete")
	require.ErrorContains(t, r.incomplete(), "3 of 100 MESSAGES LOST")
	require.ErrorContains(t, r.incomplete(), "4 of 100 MESSAGES DOUBLED")
	r.Runs = r.Runs[4:]
	require.NoError(t, r.incomplete())
}

func TestReportAsTextAndJSON(t *testing.T) {
	t.Parallel()
	r := report{Messages: 100, Controllers: controllers, Pairs: 1, Runs: []result{run100("f2mesh", 1, 20), run100("Telegraf", 1, 10)}}
	r.Results = append(r.Results, summarize(live, r.Runs))
	var text strings.Builder
	require.NoError(t, r.writeText(&text))
	assert.Contains(t, text.String(), "live: medians of 1 complete pairs of 1, 100 messages a run from 50 controllers")
	assert.Regexp(t, `ratio +2\.00 +2\.00 +2\.00 +2\.00 +2\.00 +2\.00`, text.String())

	file := filepath.Join(t.TempDir(), "report.json")
	require.NoError(t, writeJSON(file, r))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var back report
	require.NoError(t, json.Unmarshal(data, &back))
	assert.Equal(t, r, back)
}

func TestTelegrafsLog(t *testing.T) {
	t.Parallel()
	n, ok := parseWritten("2026-11-30T21:28:46Z D! [outputs.postgresql] Wrote batch of 4000 metrics in 12.5ms")
	assert.True(t, ok)
	assert.EqualValues(t, 4000, n)
	_, ok = parseWritten("2026-11-30T21:28:46Z D! [outputs.postgresql] Buffer fullness: 0 / 100000 metrics")
	assert.False(t, ok)
}
