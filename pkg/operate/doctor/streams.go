package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

func natsSync(ctx context.Context, t *Target) Finding {
	nc := t.natsUser(ctx, sysNATS)
	reply := must(nc.Request("$SYS.REQ.SERVER.PING.VARZ", nil, natsTimeout))
	var server struct {
		Data struct {
			JetStream struct {
				Config struct {
					SyncAlways bool `json:"sync_always"`
				}
			}
		}
	}
	ensure(json.Unmarshal(reply.Data, &server))
	if !server.Data.JetStream.Config.SyncAlways {
		return failed("JetStream is off, or acknowledges a message before it is on disk")
	}
	return ok("each message is on disk before the server acknowledges it")
}

func streamFiles(ctx context.Context, t *Target) Finding {
	nc := t.natsUser(ctx, operatorNATS)
	client := must(stream.NewClient(nc, natsfiles.Files, slog.New(slog.DiscardHandler)))
	differences := must(client.Differences(ctx))
	switch {
	case slices.ContainsFunc(differences, func(line string) bool { return strings.HasSuffix(line, " does not exist") }):
		return failed("%s", strings.Join(differences, "; "))
	case len(differences) > 0:
		return warning("%s", strings.Join(differences, "; "))
	}
	return ok("all streams and consumers match their files")
}

func daysToFull(ctx context.Context, t *Target) Finding {
	nc := t.natsUser(ctx, operatorNATS)
	js := must(jetstream.New(nc))
	least := math.Inf(1)
	var lines []string
	for _, name := range []string{stream.Raw, stream.Decoded} {
		info := must(js.Stream(ctx, name)).CachedInfo()
		rate, source := float64(stream.DeclaredRate(&info.Config)), "declared"
		if rate == 0 {
			rate, source = measuredRate(&info.State, t.Now()), "measured"
		}
		if info.Config.MaxBytes <= 0 || rate == 0 {
			lines = append(lines, name+": the rate is neither declared nor measured")
			continue
		}
		days := float64(info.Config.MaxBytes) / (rate * stream.MessageBytes(name, &info.State)) / 86400
		least = min(least, days)
		lines = append(lines, fmt.Sprintf("%s is full after %.1f days at %.0f messages a second (%s)", name, days, rate, source))
	}
	seen := strings.Join(lines, "; ")
	switch {
	case least < 0.5: // a night, in which nobody would come in time
		return failed("%s", seen)
	case least < 2: // a weekend
		return warning("%s", seen)
	}
	return ok("%s", seen)
}

// measuredRate is how many messages a second the stream received in the time that it holds;
// 0 where that is too short.
func measuredRate(state *jetstream.StreamState, now time.Time) float64 {
	span := now.Sub(state.FirstTime)
	if state.Msgs == 0 || span < time.Minute {
		return 0
	}
	return float64(state.Msgs) / span.Seconds()
}

// neededStreams are those without which messages are lost.
func neededStreams() []string {
	return []string{stream.Raw, stream.Decoded, stream.DeadLetter, stream.Commands, stream.Audit}
}

func streamLimits(ctx context.Context, t *Target) Finding {
	nc := t.natsUser(ctx, operatorNATS)
	var problems []string
	var growth uint64 // bytes that the streams may still take
	found := map[string]bool{}
	streams := must(jetstream.New(nc)).ListStreams(ctx)
	for s := range streams.Info() {
		found[s.Config.Name] = true
		problems = append(problems, streamProblems(s.Config)...)
		if limit := s.Config.MaxBytes; s.Config.Storage == jetstream.FileStorage && limit > 0 && uint64(limit) > s.State.Bytes {
			growth += uint64(limit) - s.State.Bytes
		}
	}
	ensure(streams.Err())
	for _, name := range neededStreams() {
		if !found[name] {
			problems = append(problems, "there is no stream "+name)
		}
	}
	if t.Containers {
		need(len(problems) > 0, "%d streams have limits and may grow by %d MiB; the free space of their volume cannot be seen from here", len(found), growth>>20)
		return verdict(problems, "")
	}
	free := must(t.Free(t.path("nats")))
	if free < growth {
		problems = append(problems, fmt.Sprintf("the disk has %d MiB free, but the streams may grow by %d MiB", free>>20, growth>>20))
	}
	return verdict(problems, "%d streams may grow by %d MiB, the disk has %d MiB free", len(found), growth>>20, free>>20)
}

func streamProblems(c jetstream.StreamConfig) (problems []string) {
	if c.Storage != jetstream.FileStorage {
		problems = append(problems, c.Name+" is in memory")
	}
	if c.MaxBytes <= 0 {
		problems = append(problems, c.Name+" has no limit")
	}
	if c.Discard != jetstream.DiscardNew && slices.Contains(neededStreams(), c.Name) && c.Name != "DEAD_LETTER" { // which counts what it drops
		problems = append(problems, c.Name+" drops its oldest messages when it is full")
	}
	return problems
}

// DiskFree is how many bytes an ordinary user may still write to a directory's disk.
func DiskFree(path string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, fmt.Errorf("reading the free space of %s: %w", path, err)
	}
	return s.Bavail * uint64(s.Bsize), nil //nolint:gosec // a block's size is not negative
}
