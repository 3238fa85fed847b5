package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// snapshotBegin bounds how long the server checks a stream before it sends it,
	// chunkTimeout how long it takes for a piece.
	snapshotBegin = 10 * time.Minute
	chunkTimeout  = time.Minute
	chunkSize     = 512 << 10
	// A server that has not stored a piece after 5 s breaks a restore off.
	restoreChunkSize = 64 << 10
)

// Snapshot is what a stream and its consumers were when Save saved them. Config and
// State are the server's own words.
type Snapshot struct {
	Name         string          `json:"name"`
	Messages     uint64          `json:"messages"`
	LastSequence uint64          `json:"last_sequence"`
	Consumers    []Position      `json:"consumers"`
	Incarnation  uint64          `json:"incarnation,omitempty"` // see Incarnation; 0 in backups of earlier versions
	Config       json.RawMessage `json:"config"`
	State        json.RawMessage `json:"state"`
}

// Position is how far a durable consumer had come.
type Position struct {
	Name     string `json:"name"`
	AckFloor uint64 `json:"ack_floor"` // of the stream
}

// from is the first message that the consumer has not acknowledged, of a stream that
// begins at first. The server moves a consumer that is behind the beginning to there, sooner or later.
func (p Position) from(first uint64) uint64 { return max(p.AckFloor+1, first) }

// incarnationKey is the metadata of a stream that was restored.
const incarnationKey = "f2mesh_incarnation"

// Incarnation distinguishes a stream from one of the same name that was deleted: it is when
// the stream was first created, in nanoseconds since 1970. nats-server does not keep
// that in a restore, which therefore writes it into the stream's metadata.
func Incarnation(info *jetstream.StreamInfo) uint64 {
	if kept, err := strconv.ParseUint(info.Config.Metadata[incarnationKey], 10, 64); err == nil {
		return kept
	}
	return uint64(info.Created.UnixNano())
}

// Save writes a stream with its consumers to w, as `nats stream backup` does. The server
// leaves out a message whose checksum is wrong, and does not say so. What the stream receives meanwhile
// may or may not be in it, and a consumer that goes on meanwhile may be saved beyond
// the last message: see Hold.
func Save(ctx context.Context, js jetstream.JetStream, name string, w io.Writer) (s Snapshot, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("saving stream %s: %w", name, err)
		}
	}()
	info, err := js.Stream(ctx, name)
	if err != nil {
		return s, err
	}
	s.Incarnation = Incarnation(info.CachedInfo())
	if s.Consumers, err = positions(ctx, js, name); err != nil {
		return s, err
	}
	nc := js.Conn()
	inbox := nc.NewInbox()
	chunks, err := nc.SubscribeSync(inbox)
	if err != nil {
		return s, err
	}
	defer func() { _ = chunks.Unsubscribe() }()
	request := map[string]any{"deliver_subject": inbox, "chunk_size": chunkSize, "jsck": true}
	var answer struct{ Config, State json.RawMessage }
	if err := call(ctx, nc, "$JS.API.STREAM.SNAPSHOT."+name, snapshotBegin, request, &answer); err != nil {
		return s, err
	}
	if err := receive(ctx, chunks, w); err != nil {
		return s, err
	}
	s.Name, s.Config, s.State = name, answer.Config, answer.State
	var state jetstream.StreamState
	if err := json.Unmarshal(s.State, &state); err != nil {
		return s, err
	}
	s.Messages, s.LastSequence = state.Msgs, state.LastSeq
	return s, nil
}

// receive copies the pieces up to the empty one, which says how it ended.
func receive(ctx context.Context, chunks *nats.Subscription, w io.Writer) error {
	for {
		bounded, cancel := context.WithTimeout(ctx, chunkTimeout)
		msg, err := chunks.NextMsgWithContext(bounded)
		cancel()
		if err != nil {
			return err
		}
		if len(msg.Data) == 0 {
			if status := msg.Header.Get("Status"); status != "" && status != "204" {
				return fmt.Errorf("the server stopped sending: %s %s", status, msg.Header.Get("Description"))
			}
			return nil
		}
		if _, err := w.Write(msg.Data); err != nil {
			return err
		}
		if msg.Reply == "" {
			continue // the last one
		}
		if err := msg.Respond(nil); err != nil {
			return err
		}
	}
}

// Restore makes a stream with its consumers of what Save wrote, and resumes those that a
// Hold had paused. The stream must not exist. Messages beyond the stream's age limit are
// removed at once.
func Restore(ctx context.Context, js jetstream.JetStream, s *Snapshot, r io.Reader) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("restoring stream %s: %w", s.Name, err)
		}
	}()
	if err := restore(ctx, js, s, r); err != nil {
		return err
	}
	info, err := js.Stream(ctx, s.Name)
	if err != nil {
		return err
	}
	if last := info.CachedInfo().State.LastSeq; last < s.LastSequence {
		return fmt.Errorf("it ends at message %d of %d", last, s.LastSequence)
	}
	now, err := positions(ctx, js, s.Name)
	if err != nil {
		return err
	}
	first := info.CachedInfo().State.FirstSeq
	if !slices.EqualFunc(now, s.Consumers, func(a, b Position) bool { return a.Name == b.Name && a.from(first) == b.from(first) }) {
		return fmt.Errorf("its consumers are at %v, and were at %v", now, s.Consumers)
	}
	for _, p := range now {
		if _, err := js.ResumeConsumer(ctx, s.Name, p.Name); err != nil {
			return fmt.Errorf("resuming consumer %s: %w", p.Name, err)
		}
	}
	return nil
}

func restore(ctx context.Context, js jetstream.JetStream, s *Snapshot, r io.Reader) error {
	nc := js.Conn()
	var answer struct {
		DeliverSubject string `json:"deliver_subject"`
	}
	config, err := s.config()
	if err != nil {
		return fmt.Errorf("reading its configuration: %w", err)
	}
	request := map[string]any{"config": config, "state": s.State}
	if err := call(ctx, nc, "$JS.API.STREAM.RESTORE."+s.Name, chunkTimeout, request, &answer); err != nil {
		return err
	}
	chunk := make([]byte, restoreChunkSize)
	for {
		n, err := io.ReadFull(r, chunk)
		if n > 0 {
			if err := send(ctx, nc, answer.DeliverSubject, chunkTimeout, chunk[:n], nil); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return send(ctx, nc, answer.DeliverSubject, snapshotBegin, nil, nil)
		case err != nil:
			return err
		}
	}
}

// config is the stream's with its incarnation. What this version does not know of it stays.
func (s *Snapshot) config() (config map[string]any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(s.Config))
	decoder.UseNumber()
	if err := decoder.Decode(&config); err != nil || s.Incarnation == 0 {
		return config, err
	}
	if config == nil {
		return nil, errors.New("it is empty")
	}
	metadata, _ := config["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata[incarnationKey] = strconv.FormatUint(s.Incarnation, 10)
	config["metadata"] = metadata
	return config, nil
}

// positions are the durable consumers' of a stream.
func positions(ctx context.Context, js jetstream.JetStream, name string) ([]Position, error) {
	s, err := js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	all := []Position{}
	consumers := s.ListConsumers(ctx)
	for info := range consumers.Info() {
		if info.Config.Durable != "" {
			all = append(all, Position{Name: info.Name, AckFloor: info.AckFloor.Stream})
		}
	}
	return all, consumers.Err()
}

// call makes a request of JetStream's API.
func call(ctx context.Context, nc *nats.Conn, subject string, timeout time.Duration, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return send(ctx, nc, subject, timeout, body, answer)
}

// send waits for the answer, which may be empty where nothing is expected.
func send(ctx context.Context, nc *nats.Conn, subject string, timeout time.Duration, body []byte, answer any) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	reply, err := nc.RequestWithContext(bounded, subject, body)
	if err != nil || len(reply.Data) == 0 && answer == nil {
		return err
	}
	var problem struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &problem); err != nil {
		return fmt.Errorf("reading the server's response: %w", err)
	}
	if problem.Error != nil {
		return problem.Error
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(reply.Data, answer)
}
