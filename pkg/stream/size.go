package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// How RAW and DECODED are sized for a rate: so much history, of so many bytes a message
// (measured; before compression, as max_bytes counts), fills the share that
// the keeper leaves.
const (
	RawHistory     = 7 * 24 * time.Hour
	DecodedHistory = 3 * 24 * time.Hour
	HistoryShare   = 0.8

	// BatchRoom is what a stream must have free to take the largest batch, with its
	// headers and subjects.
	BatchRoom = maxBatchBytes + 1<<20

	rawMessage     = 400
	decodedMessage = 450
	// leastBytes is the smallest size: half of it is free for a batch, and there is
	// history as well.
	leastBytes = 64 << 20
	// diskShare is how much of what the disk has the streams may take: the databases
	// need the rest.
	diskShare = 0.5
	// rateKey is where a stream's metadata say which rate it was sized for.
	rateKey = "f2mesh-rate"
)

// Sizes are an operator's choice of the limits of RAW and DECODED, and of how many servers
// hold each stream. Its zero value leaves what there is, and else what the files say.
type Sizes struct {
	Rate         int   `help:"Messages per second of the fleet. Sizes RAW and DECODED for 7 and 3 days of history, within half of the disk." env:"F2MESH_RATE" placeholder:"N"`
	RawBytes     int64 `help:"Size limit of the stream RAW. Overrides --rate." env:"F2MESH_RAW_BYTES" name:"raw-bytes" placeholder:"N"`
	DecodedBytes int64 `help:"Size limit of the stream DECODED. Overrides --rate." env:"F2MESH_DECODED_BYTES" name:"decoded-bytes" placeholder:"N"`
	Replicas     int   `help:"How many NATS servers of a cluster hold each stream: 1, 3 or 5. Default: leave what there is; new streams have 1." env:"NATS_REPLICAS" placeholder:"N"`

	// Free tells how many bytes the disk of the streams has left; nil: nobody knows.
	Free func() (uint64, error) `kong:"-"`
}

// Validate names the first setting that cannot work.
func (s *Sizes) Validate() error {
	switch {
	case s.Rate < 0 || s.Rate > 1_000_000:
		return errors.New("--rate must be 0 to 1000000 messages a second; 0 leaves the streams' sizes")
	case s.RawBytes != 0 && s.RawBytes < leastBytes, s.DecodedBytes != 0 && s.DecodedBytes < leastBytes:
		return fmt.Errorf("--raw-bytes and --decoded-bytes must be at least %d; 0 leaves the streams' sizes", leastBytes)
	case s.Replicas < 0 || s.Replicas > 5 || s.Replicas%2 == 0 && s.Replicas != 0:
		return fmt.Errorf("--replicas must be 1, 3 or 5, not %d: with an even number one more server can fail the cluster, and none more is tolerated", s.Replicas)
	}
	return nil
}

// limit is a size that was chosen for a stream, and the rate that it is for; a nil one
// chooses nothing.
type limit struct {
	bytes int64
	rate  int // 0: an operator's own
}

func (l *limit) set(want *jetstream.StreamConfig) {
	if l == nil {
		return
	}
	want.MaxBytes = l.bytes
	want.Metadata = maps.Clone(want.Metadata)
	delete(want.Metadata, rateKey)
	if l.rate > 0 {
		if want.Metadata == nil {
			want.Metadata = map[string]string{}
		}
		want.Metadata[rateKey] = strconv.Itoa(l.rate)
	}
}

// DeclaredRate is the rate that a stream was sized for; 0: for none.
func DeclaredRate(c *jetstream.StreamConfig) int {
	rate, _ := strconv.Atoi(c.Metadata[rateKey])
	return rate
}

// MessageBytes is what a message of RAW or DECODED takes, where the stream has too few
// to tell.
func MessageBytes(streamName string, state *jetstream.StreamState) float64 {
	switch {
	case state.Msgs >= 1000:
		return float64(state.Bytes) / float64(state.Msgs)
	case streamName == Raw:
		return rawMessage
	}
	return decodedMessage
}

// choose says which streams get which size, and explains it. A stream that was sized for
// the same rate already keeps what it has.
func (c *Client) choose(ctx context.Context, sizes Sizes, files []jetstream.StreamConfig) (chosen map[string]*limit, explained []string, err error) {
	chosen = map[string]*limit{}
	own := map[string]int64{Raw: sizes.RawBytes, Decoded: sizes.DecodedBytes}
	for name, bytes := range own {
		if bytes > 0 {
			chosen[name] = &limit{bytes: bytes}
		}
	}
	if sizes.Rate == 0 {
		return chosen, nil, nil
	}
	var others, held int64 // what other streams may still take; what is on the disk already
	sized := true
	for i := range files {
		name := files[i].Name
		limit, bytes := files[i].MaxBytes, int64(0)
		err := c.untilAnswered(ctx, "stream "+name, func(ctx context.Context) error {
			info, err := Find(ctx, c.js, name)
			if err != nil {
				return err
			}
			if info == nil {
				sized = sized && !history(name)
				return nil
			}
			limit, bytes = info.Config.MaxBytes, int64(info.State.Bytes) //nolint:gosec // at most the limit
			sized = sized && (!history(name) || chosen[name] != nil || DeclaredRate(&info.Config) == sizes.Rate)
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
		if history(name) && chosen[name] == nil {
			held += bytes
		} else {
			others += max(0, limit-bytes)
		}
	}
	if sized {
		return chosen, nil, nil
	}
	room := int64(-1)
	if sizes.Free != nil {
		free, err := sizes.Free()
		if err != nil {
			return nil, nil, err
		}
		room = max(0, int64(diskShare*float64(free))+held-others)
	}
	raw, decoded := chooseBytes(sizes.Rate, room)
	for name, bytes := range map[string]int64{Raw: raw, Decoded: decoded} {
		if chosen[name] == nil {
			chosen[name] = &limit{bytes: bytes, rate: sizes.Rate}
		}
	}
	return chosen, []string{explain(sizes.Rate, raw, decoded, room)}, nil
}

// history reports whether a stream's size follows the rate.
func history(name string) bool { return name == Raw || name == Decoded }

// chooseBytes are the limits of RAW and DECODED for a rate; room is what both may have
// together, -1 if nobody knows.
func chooseBytes(rate int, room int64) (raw, decoded int64) {
	need := func(message int64, history time.Duration) int64 {
		return int64(float64(int64(rate)*message*int64(history/time.Second)) / HistoryShare)
	}
	raw, decoded = need(rawMessage, RawHistory), need(decodedMessage, DecodedHistory)
	if room >= 0 && raw+decoded > room {
		part := float64(room) / float64(raw+decoded)
		raw, decoded = int64(part*float64(raw)), int64(part*float64(decoded))
	}
	return max(raw, leastBytes), max(decoded, leastBytes)
}

func explain(rate int, raw, decoded, room int64) string {
	days := func(bytes int64, message float64, share float64) float64 {
		return share * float64(bytes) / message / float64(rate) / 86400
	}
	disk := "the free space of the streams' disk is not known here"
	if room >= 0 {
		disk = "the disk has " + bytesText(room) + " for both"
	}
	return fmt.Sprintf("for %d messages a second, of %d and %d bytes before compression, RAW has %s: %.1f days of history, or %.1f days until it is full while nothing is decoded; DECODED has %s: %.1f days, or %.1f days while nothing is written; %s",
		rate, rawMessage, decodedMessage,
		bytesText(raw), days(raw, rawMessage, HistoryShare), days(raw, rawMessage, 1),
		bytesText(decoded), days(decoded, decodedMessage, HistoryShare), days(decoded, decodedMessage, 1), disk)
}

func bytesText(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
