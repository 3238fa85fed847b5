package stream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// The operator's part: streams and consumers are made from their files. Services
// open what is there (open.go).

// SetUp makes all streams and consumers that there are files for, and brings those that
// are there to what the files say. What an operator changed stays: see merge. It
// waits for the server for as long as ctx lasts, and returns a line for each thing
// that it changed. A dry run changes nothing.
func (c *Client) SetUp(ctx context.Context, sizes Sizes, dryRun bool) (changes []string, err error) {
	streams, err := c.streamFiles()
	if err != nil {
		return nil, err
	}
	chosen, explained, err := c.choose(ctx, sizes, streams)
	if err != nil {
		return nil, err
	}
	for i := range streams {
		if !dryRun {
			if err := c.replace(ctx, &streams[i]); err != nil {
				return changes, err
			}
		}
		change, err := c.ensure(ctx, &streams[i], chosen[streams[i].Name], sizes.Replicas, dryRun)
		if err != nil {
			return changes, err
		}
		changes = append(changes, change...)
	}
	changes = append(changes, explained...)
	continued, err := c.continueRaw(ctx, dryRun)
	if err != nil {
		return changes, err
	}
	changes = append(changes, continued...)
	consumers, err := c.consumerFiles()
	if err != nil {
		return changes, err
	}
	for i := range consumers {
		_, change, err := c.ensureConsumer(ctx, &consumers[i], dryRun)
		if err != nil {
			return changes, err
		}
		changes = append(changes, change...)
	}
	return changes, nil
}

// Ensure is SetUp for some streams alone.
func (c *Client) Ensure(ctx context.Context, names ...string) error {
	for _, name := range names {
		var want jetstream.StreamConfig
		if err := readJSON(c.files, streamFile(name), &want); err != nil {
			return err
		}
		if _, err := c.ensure(ctx, &want, nil, 0, false); err != nil {
			return err
		}
	}
	return nil
}

// Consumer is SetUp for one consumer, and returns it.
func (c *Client) Consumer(ctx context.Context, streamName, name string) (jetstream.Consumer, error) {
	d := consumerFile{stream: streamName}
	if err := readJSON(c.files, consumerFileName(streamName, name), &d.ConsumerConfig); err != nil {
		return nil, err
	}
	consumer, _, err := c.ensureConsumer(ctx, &d, false)
	return consumer, err
}

// Differences says where streams and consumers are not as their files say, and which replicas
// of a stream are not complete: a line each. Not what setup itself chose, which is the size
// for a declared rate, and the number of replicas.
func (c *Client) Differences(ctx context.Context) (lines []string, err error) {
	streams, err := c.streamFiles()
	if err != nil {
		return nil, err
	}
	for i := range streams {
		file := &streams[i]
		current, err := Find(ctx, c.js, file.Name)
		if err != nil {
			return nil, err
		}
		if current == nil {
			lines = append(lines, "stream "+file.Name+" does not exist")
			continue
		}
		config := current.Config
		if config.Metadata[rateKey] != "" {
			config.MaxBytes = file.MaxBytes
		}
		if config.Replicas > 1 { // setup's --replicas
			config.Replicas, config.Compression = file.Replicas, file.Compression
		}
		lines = append(lines, differences("stream "+file.Name, config, *file)...)
		for _, problem := range Behind(current) {
			lines = append(lines, "stream "+file.Name+": "+problem)
		}
	}
	consumers, err := c.consumerFiles()
	if err != nil {
		return nil, err
	}
	for i := range consumers {
		d := &consumers[i]
		current, err := FindConsumer(ctx, c.js, d.stream, d.Durable)
		if err != nil {
			return nil, err
		}
		if current == nil {
			lines = append(lines, d.name()+" does not exist")
			continue
		}
		lines = append(lines, differences(d.name(), current.Config, d.ConsumerConfig)...)
	}
	return lines, nil
}

// ensure makes the stream, or brings it to what its file says; with a limit and a number of
// replicas, also to those. Its consumers have as many replicas as the stream.
func (c *Client) ensure(ctx context.Context, file *jetstream.StreamConfig, limit *limit, replicas int, dryRun bool) (changes []string, err error) {
	err = c.untilAnswered(ctx, "stream "+file.Name, func(ctx context.Context) error {
		changes = nil
		current, err := Find(ctx, c.js, file.Name)
		if err != nil {
			return err
		}
		if current == nil {
			want := *file
			limit.set(&want)
			replicate(&want, replicas)
			changes = []string{fmt.Sprintf("stream %s: created, limit %s", want.Name, bytesText(want.MaxBytes))}
			if !dryRun {
				_, err = c.js.CreateStream(ctx, want)
				return err
			}
			return nil
		}
		now := current.Config
		want := merge(now, *file)
		limit.set(&want)
		replicate(&want, replicas)
		if changes = differences("stream "+file.Name, now, want); len(changes) == 0 || dryRun {
			return nil
		}
		_, err = c.js.UpdateStream(ctx, want)
		return err
	})
	return changes, err
}

// replicate has a stream have so many replicas, or as many as it has with 0. Those of several
// are not compressed: with S2, servers of a cluster that were killed and paused could not read
// blocks of their own any more (nats-server 2.15.2, in two runs; in none without).
func replicate(want *jetstream.StreamConfig, replicas int) {
	want.Replicas = cmp.Or(replicas, want.Replicas)
	if want.Replicas > 1 {
		want.Compression = jetstream.NoCompression
	}
}

// merge is what a stream becomes: what its file says, but for what is the operator's to
// choose and what cannot be changed any more.
func merge(current, file jetstream.StreamConfig) jetstream.StreamConfig {
	want := file
	want.Replicas, want.Placement, want.Compression, want.Metadata = current.Replicas, current.Placement, current.Compression, current.Metadata
	want.SubjectTransform, want.RePublish = current.SubjectTransform, current.RePublish
	want.MaxBytes, want.MaxMsgs, want.MaxMsgSize = current.MaxBytes, current.MaxMsgs, current.MaxMsgSize
	if file.MaxAge > 0 { // one without is trimmed by the keeper, and never by age what waits
		want.MaxAge = current.MaxAge
	}
	if current.MaxMsgsPerSubject > 0 {
		want.MaxMsgsPerSubject = current.MaxMsgsPerSubject
	}
	// A cell's stream may be a mirror, or have its messages from others.
	want.Mirror, want.Sources = current.Mirror, current.Sources
	if want.Mirror != nil || len(want.Sources) > 0 {
		want.Subjects = current.Subjects
	}
	want.Storage, want.PersistMode, want.MaxConsumers = current.Storage, current.PersistMode, current.MaxConsumers // for good
	want.AllowMsgTTL = want.AllowMsgTTL || current.AllowMsgTTL
	return want
}

// consumerFile is a consumer as its file declares it.
type consumerFile struct {
	stream string
	jetstream.ConsumerConfig
}

func (d *consumerFile) name() string { return "consumer " + d.Durable + " of " + d.stream }

func (c *Client) ensureConsumer(ctx context.Context, d *consumerFile, dryRun bool) (consumer jetstream.Consumer, changes []string, err error) {
	err = c.untilAnswered(ctx, d.name(), func(ctx context.Context) error {
		changes = nil
		var err error
		consumer, err = c.js.Consumer(ctx, d.stream, d.Durable)
		want := d.ConsumerConfig
		switch {
		case errors.Is(err, jetstream.ErrConsumerNotFound), dryRun && errors.Is(err, jetstream.ErrStreamNotFound):
			changes = []string{d.name() + ": created"}
		case err != nil:
			return err
		default:
			now := consumer.CachedInfo().Config
			want.Replicas, want.MemoryStorage, want.Metadata = now.Replicas, now.MemoryStorage, now.Metadata
			want.AckPolicy = now.AckPolicy // for good
			changes = differences(d.name(), now, want)
		}
		if len(changes) == 0 || dryRun {
			return nil
		}
		consumer, err = c.js.CreateOrUpdateConsumer(ctx, d.stream, want)
		return err
	})
	return consumer, changes, err
}

// differences lists the settings in which current is not as want. Metadata are
// nobody's setting.
func differences(name string, current, want any) (lines []string) {
	has, wants := settings(current), settings(want)
	keys := slices.Sorted(maps.Keys(wants))
	for _, key := range slices.Sorted(maps.Keys(has)) {
		if _, ok := wants[key]; !ok && !reflect.ValueOf(has[key]).IsZero() {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		if key != "metadata" && key != "consumer_limits" && !reflect.DeepEqual(wants[key], has[key]) {
			lines = append(lines, fmt.Sprintf("%s: %s is %s, should be %s", name, key, setting(has[key]), setting(wants[key])))
		}
	}
	return lines
}

func setting(value any) string {
	if value == nil {
		return "not set"
	}
	if n, ok := value.(float64); ok {
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}

// settings are those of a stream or consumer by their names, without what is not set.
func settings(c any) (all map[string]any) {
	if text, err := json.Marshal(c); err == nil { // it was JSON before
		_ = json.Unmarshal(text, &all)
	}
	return all
}

// streamFiles are the streams that there are files for.
func (c *Client) streamFiles() ([]jetstream.StreamConfig, error) {
	names, err := fs.Glob(c.files, "stream_*.json")
	if err != nil {
		return nil, err
	}
	all := make([]jetstream.StreamConfig, len(names))
	for i, name := range names {
		if err := readJSON(c.files, name, &all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// consumerFiles are the consumers of these streams.
func (c *Client) consumerFiles() (all []consumerFile, err error) {
	streams, err := c.streamFiles()
	if err != nil {
		return nil, err
	}
	for i := range streams {
		names, err := fs.Glob(c.files, consumerFileName(streams[i].Name, "*"))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			d := consumerFile{stream: streams[i].Name}
			if err := readJSON(c.files, name, &d.ConsumerConfig); err != nil {
				return nil, err
			}
			all = append(all, d)
		}
	}
	return all, nil
}

func streamFile(streamName string) string { return "stream_" + fileName(streamName) + ".json" }

func consumerFileName(streamName, name string) string {
	return "consumer_" + fileName(streamName) + "_" + name + ".json"
}

// fileName is a stream's name in a file's: in lower case, and that of the
// bucket for the stream behind a key-value bucket.
func fileName(streamName string) string {
	return strings.ToLower(strings.TrimPrefix(streamName, "KV_"))
}

func readJSON(files fs.FS, name string, v any) error {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return fmt.Errorf("reading definition: %w", err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("reading definition %s: %w", name, err)
	}
	return nil
}
