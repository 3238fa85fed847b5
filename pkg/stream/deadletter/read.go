package deadletter

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Stored is a letter as the stream holds it.
type Stored struct {
	Letter
	Sequence uint64    // in DEAD_LETTER
	Stored   time.Time // there
	// Count is how many letters of the subject there have been, this one included.
	Count uint64
	// Length is the whole payload's, of which Payload may be the beginning.
	Length int
	// Digest is the event.Digest of what never reached RAW, else zero.
	Digest [16]byte
	// Removed is set on what stands for a removed letter, see HeaderRemoved.
	Removed bool
}

// Whole reports whether Payload is all of the message's.
func (s *Stored) Whole() bool { return s.Length == len(s.Payload) }

// Counted reports whether the letter is there for the ledger to count, and not a
// failure: a copy that the bridge dropped, or a retained message.
func (s *Stored) Counted() bool { return s.Stage == stream.StageBridge && IsCount(s.Reason) }

// The reasons of the bridge's letters that are no failures (design 5.3 and 5.7).
const (
	ReasonCopy     = "repeated_delivery"
	ReasonRetained = "retained"
)

// IsCount reports whether reason is one of those that are not failures.
func IsCount(reason string) bool { return reason == ReasonCopy || reason == ReasonRetained }

// Parse reads a message of the stream, whose data it keeps.
func Parse(m *stream.Message) Stored {
	s := Stored{Sequence: m.Sequence, Stored: m.Time.UTC()}
	s.Stage, s.Reason, s.MAC = split(m.Subject)
	get := func(key string) string {
		if v := m.Header[key]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	s.Count, _ = strconv.ParseUint(get(HeaderCount), 10, 64)
	s.ID, _ = event.ParseID(get(event.HeaderID))
	s.Removed = get(HeaderRemoved) != ""
	s.Detail, s.Topic, s.Member = unquote(get(HeaderDetail)), unquote(get(HeaderTopic)), unquote(get(HeaderMember))
	s.Received, _ = time.Parse(time.RFC3339Nano, get(event.HeaderReceived))
	s.Time, _ = time.Parse(time.RFC3339Nano, get(HeaderTime))
	point, _ := strconv.ParseInt(get(HeaderDataPoint), 10, 32)
	s.DataPointID = int32(point)
	s.Part = get(HeaderDecoded) != "" || point != 0
	s.Decoded, _ = strconv.Atoi(get(HeaderDecoded))
	s.MetadataVersion, s.SQLState = get(HeaderMetadataVersion), get(HeaderSQLState)
	digest, _ := hex.DecodeString(get(HeaderDigest))
	copy(s.Digest[:], digest)
	s.Payload, s.Length = m.Data, len(m.Data)
	if length, err := strconv.Atoi(get(HeaderPayloadLength)); err == nil {
		s.Length = length
	}
	return s
}

// split takes the subject of a letter apart; the MAC is empty where it was not
// known.
func split(subject string) (stage, reason string, mac topic.MAC) {
	tokens := strings.Split(subject, ".")
	if len(tokens) != 5 {
		return "", "", ""
	}
	if m, err := topic.ParseMAC(tokens[4]); err == nil && string(m) == tokens[4] {
		mac = m
	}
	return strings.Clone(tokens[2]), strings.Clone(tokens[3]), topic.MAC(strings.Clone(string(mac)))
}

// unquote inverts quote for what was not too long.
func unquote(s string) string {
	if text, err := strconv.Unquote(`"` + strings.ReplaceAll(s, `"`, `\"`) + `"`); err == nil {
		return text
	}
	return s
}

// Filter chooses letters; zero fields choose all.
type Filter struct {
	Stage, Reason string
	MAC           topic.MAC
	Unknown       bool // those of an unknown controller, in place of MAC
	Since, Until  time.Time
	// HeadersOnly leaves the payloads out.
	HeadersOnly bool
}

// NewFilter reads what a person asks for. The MAC may be "unknown".
func NewFilter(stage, reason, mac string) (f Filter, err error) {
	f = Filter{Stage: stage, Reason: reason, Unknown: mac == unknown}
	if strings.Trim(reason, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return f, fmt.Errorf("%q is not a reason: f2mesh dead list shows those there are", reason)
	}
	if mac != "" && !f.Unknown {
		if f.MAC, err = topic.ParseMAC(mac); err != nil {
			return f, fmt.Errorf("%q is not a MAC address: 12 hex digits, without separators or with - or : between bytes", mac)
		}
	}
	return f, nil
}

// Subject is the filter's subject, with wildcards.
func (f *Filter) Subject() string {
	token := func(s string) string {
		if s == "" {
			return "*"
		}
		return s
	}
	mac := token(string(f.MAC))
	if f.Unknown {
		mac = unknown
	}
	return "f2.dead." + token(f.Stage) + "." + token(f.Reason) + "." + mac
}

// Read calls visit for each letter, and what stands for removed ones, in order.
func (f *Filter) Read(ctx context.Context, js jetstream.JetStream, visit func(Stored) error) error {
	s := stream.Scan{Stream: stream.DeadLetter, Subjects: []string{f.Subject()}, Since: f.Since, HeadersOnly: f.HeadersOnly}
	return s.Read(ctx, js, func(m *stream.Message) error {
		if !f.Until.IsZero() && m.Time.After(f.Until) {
			return stream.ErrStop
		}
		return visit(Parse(m))
	})
}

// Get returns the letter at a sequence of the stream.
func Get(ctx context.Context, js jetstream.JetStream, sequence uint64) (Stored, error) {
	s, err := js.Stream(ctx, stream.DeadLetter)
	if err != nil {
		return Stored{}, fmt.Errorf("stream %s: %w", stream.DeadLetter, err)
	}
	m, err := s.GetMsg(ctx, sequence)
	if err != nil {
		return Stored{}, fmt.Errorf("reading letter %d of %s: %w", sequence, stream.DeadLetter, err)
	}
	return Parse(stream.MessageOf(m)), nil
}

// Remove removes letters from the stream. Their subjects' counts stay, and so the
// ledger still knows that there were such letters: where the newest of a subject is
// among them, something that is no letter stands for it.
func Remove(ctx context.Context, js jetstream.JetStream, letters []Stored) error {
	s, err := js.Stream(ctx, stream.DeadLetter)
	if err != nil {
		return fmt.Errorf("stream %s: %w", stream.DeadLetter, err)
	}
	newest := make(map[string]*Stored)
	for i := range letters {
		l := &letters[i]
		if n := newest[l.Subject()]; n == nil || n.Sequence < l.Sequence {
			newest[l.Subject()] = l
		}
	}
	for _, l := range newest {
		if err := keepCount(ctx, js, l); err != nil {
			return fmt.Errorf("keeping the count of %s: %w", l.Subject(), err)
		}
	}
	for i := range letters {
		err := s.DeleteMsg(ctx, letters[i].Sequence)
		if err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) && !gone(err) {
			return fmt.Errorf("removing letter %d: %w", letters[i].Sequence, err)
		}
	}
	return nil
}

// gone reports whether there is no such message, any more.
func gone(err error) bool {
	var apiErr *jetstream.APIError
	return errors.Is(err, jetstream.ErrMsgNotFound) || errors.As(err, &apiErr) && (apiErr.ErrorCode == 10057 || apiErr.Code == 404)
}

// keepCount stores what stands for l, unless there is a newer letter of its subject.
func keepCount(ctx context.Context, js jetstream.JetStream, l *Stored) error {
	m := nats.NewMsg(l.Subject())
	m.Header[HeaderCount] = []string{strconv.FormatUint(l.Count, 10)}
	m.Header[HeaderRemoved] = []string{"1"}
	if l.ID != (event.ID{}) {
		m.Header[event.HeaderID] = []string{l.ID.String()}
	}
	if l.DataPointID != 0 {
		m.Header[HeaderDataPoint] = []string{strconv.Itoa(int(l.DataPointID))}
	}
	_, err := js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(l.Sequence))
	if apiErr := (*jetstream.APIError)(nil); errors.As(err, &apiErr) && apiErr.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return nil
	}
	return err
}
