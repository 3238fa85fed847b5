package alarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	pageMessages = 1000
	pageBytes    = 4 << 20
	askTimeout   = 10 * time.Second
	// atOnce is how many alarms change at the same time.
	atOnce = 64
)

// store is what the service knows of the stream ALARM: the last entry of each alarm. Whoever
// changes an alarm states the entry that the change follows, so a change happens once. If
// somebody else was faster, the change is made again from what they stored. It belongs to one
// goroutine.
type store struct {
	streams *stream.Client
	log     *slog.Logger
	metrics *metrics
	// publish stores an entry behind the one with the sequence last.
	publish func(ctx context.Context, e *alert.Entry, last uint64) (uint64, error)

	mu  sync.Mutex // guards all; apply changes several alarms at the same time, each in one goroutine
	all map[string]*instance
}

// instance is one alarm.
type instance struct {
	entry  alert.Entry
	seq    uint64 // of entry; 0: the alarm has none
	stored time.Time
}

func newStore(streams *stream.Client, m *metrics, log *slog.Logger) *store {
	publish := func(ctx context.Context, e *alert.Entry, last uint64) (uint64, error) {
		return Publish(ctx, streams.JetStream(), e, last)
	}
	return &store{streams: streams, log: log, metrics: m, publish: publish, all: map[string]*instance{}}
}

// load reads the last entry of every alarm.
func (s *store) load(ctx context.Context) error {
	return readAll(ctx, s.streams.JetStream(), stream.Alarm, alert.Prefix+">", func(m *jetstream.RawStreamMsg) {
		e, err := alert.Parse(m.Data)
		if err != nil {
			s.log.Warn("an alarm cannot be read", "sequence", m.Sequence, "error", err)
			return
		}
		i := s.instance(e.ID())
		i.entry, i.seq, i.stored = e, m.Sequence, m.Time
	})
}

// readAll reads what a stream has on a subject, in its order. The user needs the right to direct
// gets, and no more.
func readAll(ctx context.Context, js jetstream.JetStream, name, subject string, visit func(*jetstream.RawStreamMsg)) error {
	wait := backoff.NewExponentialBackOff()
	for next := uint64(1); ; {
		last, err := readPage(ctx, js, name, subject, next, visit)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("reading %s: %w", name, ctx.Err())
		case err != nil:
			select {
			case <-ctx.Done():
			case <-time.After(wait.NextBackOff()):
			}
		case last == 0:
			return nil
		default:
			next = last + 1
			wait.Reset()
		}
	}
}

// readPage returns the sequence of the last message that it read; 0: there is no more.
func readPage(ctx context.Context, js jetstream.JetStream, name, subject string, first uint64, visit func(*jetstream.RawStreamMsg)) (last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	page, err := jetstreamext.GetBatch(ctx, js, name, pageMessages,
		jetstreamext.GetBatchSubject(subject), jetstreamext.GetBatchSeq(first), jetstreamext.GetBatchMaxBytes(pageBytes))
	if err != nil {
		return 0, err
	}
	for m, err := range page {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			return last, nil
		}
		if err != nil {
			return last, err
		}
		visit(m)
		last = m.Sequence
	}
	return last, ctx.Err()
}

func (s *store) instance(id string) *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.all[id]
	if i == nil {
		i = &instance{}
		s.all[id] = i
	}
	return i
}

// known reports whether the alarm has an entry.
func (s *store) known(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id] != nil
}

// raised reports whether the alarm is raised.
func (s *store) raised(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.all[id]
	return i != nil && i.entry.Active()
}

// ids lists the alarms whose entry is as asked for.
func (s *store) ids(want func(*alert.Entry) bool) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, i := range s.all {
		if want(&i.entry) {
			ids = append(ids, id)
		}
	}
	return ids
}

// show has the metrics say how many alarms are raised.
func (s *store) show() {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[alert.Severity]int{alert.Info: 0, alert.Warning: 0, alert.Critical: 0}
	for _, i := range s.all {
		if i.entry.Active() {
			n[i.entry.Severity]++
		}
	}
	for severity, count := range n {
		s.metrics.raised.WithLabelValues(string(severity)).Set(float64(count))
	}
}

// rewrite returns what follows from an alarm's last entry.
type rewrite func(alert.Entry) []alert.Entry

// apply stores changes: those of one alarm in their order, those of several at the same time.
// It retries for as long as ctx lasts.
func (s *store) apply(ctx context.Context, changes map[string][]rewrite) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for id, all := range changes {
		group.Go(func() error {
			for _, one := range all {
				if err := s.change(ctx, id, one); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (s *store) change(ctx context.Context, id string, f rewrite) error {
	i := s.instance(id)
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 50*time.Millisecond, 5*time.Second
	for {
		err := s.attempt(ctx, i, f)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil && errors.Is(err, errOvertaken) {
			s.metrics.overtaken.Inc()
			err = s.reload(ctx, id, i)
			if err == nil {
				continue
			}
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		s.log.Warn("an alarm was not stored, will retry", "alarm", id, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(wait.NextBackOff()):
		}
	}
}

var errOvertaken = errors.New("the alarm was changed by somebody else")

func (s *store) attempt(ctx context.Context, i *instance, f rewrite) error {
	for _, next := range f(i.entry) {
		seq, err := s.publish(ctx, &next, i.seq)
		if err != nil {
			return err
		}
		s.metrics.count(&next)
		if next.Status == alert.Raised && i.entry.Status != alert.Raised {
			s.log.Info("alarm raised", "alarm", next.ID(), "severity", string(next.Severity))
		}
		i.entry, i.seq, i.stored = next, seq, time.Now()
	}
	return nil
}

// Publish stores an entry behind the alarm's last one, which has that sequence. It is safe to
// try again after an error: an entry is stored once.
func Publish(ctx context.Context, js jetstream.JetStream, e *alert.Entry, last uint64) (uint64, error) {
	id := e.ID() + "/" + e.Event.String() + "/" + string(e.Status) + "/" + strconv.FormatInt(e.Time.UnixNano(), 36)
	return send(ctx, js, e, nats.Header{jetstream.MsgIDHeader: {id}}, last)
}

// send stores an entry with the headers behind the alarm's last one.
func send(ctx context.Context, js jetstream.JetStream, e *alert.Entry, header nats.Header, last uint64) (uint64, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	m := &nats.Msg{Subject: e.Subject(), Data: data, Header: header}
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(last, 10))
	ack, err := js.PublishMsg(ctx, m)
	var refusal *jetstream.APIError
	if errors.As(err, &refusal) && (refusal.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || refusal.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return 0, errOvertaken
	}
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// reload reads the alarm's last entry again.
func (s *store) reload(ctx context.Context, id string, i *instance) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	m, err := s.streams.Message(ctx, stream.Alarm, stream.Query{Last: alert.Prefix + id})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		i.entry, i.seq, i.stored = alert.Entry{}, 0, time.Time{}
		return nil
	}
	if err != nil {
		return err
	}
	e, err := alert.Parse(m.Data)
	if err != nil {
		return err
	}
	i.entry, i.seq, i.stored = e, m.Sequence, m.Time
	return nil
}
