package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

func streamChecks() []Check {
	return []Check{
		{
			"loss-stream-files", lossGuide, "each stream and consumer against its file in nats/",
			"`f2mesh setup --streams` for what is missing; what you changed on purpose may stay", streamFiles,
		},
		{
			"loss-days-to-full", lossGuide, "how long RAW and DECODED take new messages while their readers stand still",
			"declare the fleet's rate (`f2mesh up --rate`, F2MESH_RATE), with a disk that has room for it", daysToFull,
		},
	}
}

func streamFiles(ctx context.Context, m *Mesh) Finding {
	nc, err := m.natsUser(ctx, operatorNATS)
	if err != nil {
		return failed("%v", err)
	}
	defer nc.Close()
	client, err := stream.NewClient(nc, natsfiles.Files, slog.New(slog.DiscardHandler))
	if err != nil {
		return failed("%v", err)
	}
	differences, err := client.Differences(ctx)
	switch {
	case err != nil:
		return failed("%v", err)
	case slices.ContainsFunc(differences, func(line string) bool { return strings.HasSuffix(line, " does not exist") }):
		return failed("%s", strings.Join(differences, "; "))
	case len(differences) > 0:
		return warning("%s", strings.Join(differences, "; "))
	}
	return ok("all are there, as their files say")
}

const (
	// leastDays is how long a reader may stand still at least: long enough for
	// somebody to come on Monday.
	leastDays = 2
	// nightDays is less than a night: nobody would be there in time.
	nightDays = 0.5
)

func daysToFull(ctx context.Context, m *Mesh) Finding {
	nc, err := m.natsUser(ctx, operatorNATS)
	if err != nil {
		return failed("%v", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return failed("%v", err)
	}
	least := math.Inf(1)
	var lines []string
	for _, name := range []string{stream.Raw, stream.Decoded} {
		s, err := js.Stream(ctx, name)
		if err != nil {
			return failed("stream %s: %v", name, err)
		}
		info := s.CachedInfo()
		rate, from := float64(stream.DeclaredRate(&info.Config)), "declared"
		if rate == 0 {
			rate, from = seenRate(&info.State, m.Now()), "seen"
		}
		if info.Config.MaxBytes <= 0 || rate == 0 {
			lines = append(lines, name+": no rate was declared, and none is seen")
			continue
		}
		days := float64(info.Config.MaxBytes) / (rate * stream.MessageBytes(name, &info.State)) / 86400
		least = min(least, days)
		lines = append(lines, fmt.Sprintf("%s is full after %.1f days at %.0f messages a second (%s)", name, days, rate, from))
	}
	switch {
	case least < nightDays:
		return failed("%s", strings.Join(lines, "; "))
	case least < leastDays:
		return warning("%s", strings.Join(lines, "; "))
	}
	return ok("%s", strings.Join(lines, "; "))
}

// seenRate is how many messages a second the stream got over the time that it holds; 0
// where that is too short.
func seenRate(state *jetstream.StreamState, now time.Time) float64 {
	span := now.Sub(state.FirstTime)
	if state.Msgs == 0 || span < time.Minute {
		return 0
	}
	return float64(state.Msgs) / span.Seconds()
}
