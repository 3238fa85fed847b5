package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	operate "github.com/f2mesh/f2mesh/pkg/operate/command"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	// requestPrefix is before the component in the subject of a request for a command.
	requestPrefix = "f2.do."
	// requestGroup has one of several bridges take a request.
	requestGroup = "f2mesh-bridge"
	// maxRequests is how many requests may wait for their outcomes.
	maxRequests = 1000
	// outcomeMargin is how long after its expiry a command has its outcome at the latest.
	outcomeMargin = 10 * time.Second
)

// requests serves f2.do.<mac>.<mode>.<connector>.<component>[.<verb>]: a program sends a
// command as a request, and the reply is its outcome. Only the console and the operator can
// send one. They say who the person is (outcome.HeaderPerson), whom the access file must
// allow it; nats.MsgIdHdr and outcome.HeaderWait are as on COMMANDS.
type requests struct {
	streams *stream.Client
	sender  *operate.Sender
	maxAge  time.Duration
	log     *slog.Logger
	room    chan struct{} // as many as wait
}

func newRequests(cfg Config, streams *stream.Client, log *slog.Logger) *requests {
	policy := access.Unrestricted
	if cfg.AccessFile != "" {
		file, err := access.Open(cfg.AccessFile, log)
		if err != nil { // readings must not wait for it
			log.Error("nobody may send commands by request until the access file is valid", "error", err)
		}
		policy = file.Policy
	}
	return &requests{
		streams: streams, sender: operate.NewSender(streams, policy), maxAge: cfg.CommandMaxAge, log: log, room: make(chan struct{}, maxRequests),
	}
}

// run serves requests until ctx ends. Those that wait then are told that the outcome is not
// known yet.
func (r *requests) run(ctx context.Context) error {
	came := make(chan *nats.Msg, maxRequests)
	sub, err := r.streams.JetStream().Conn().ChanQueueSubscribe(requestPrefix+">", requestGroup, came)
	if err != nil {
		return fmt.Errorf("subscribing to requests for commands: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	var work sync.WaitGroup
	defer work.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-came:
			r.accept(ctx, &work, m)
		}
	}
}

func (r *requests) accept(ctx context.Context, work *sync.WaitGroup, m *nats.Msg) {
	select {
	case r.room <- struct{}{}:
		work.Go(func() {
			defer func() { <-r.room }()
			r.serve(ctx, m)
		})
	default:
		r.refuse(m, 503, fmt.Errorf("%d commands wait for their outcomes already; it was not sent", maxRequests))
	}
}

func (r *requests) serve(ctx context.Context, m *nats.Msg) {
	place, err := topic.ParseSubject("f2.command." + strings.TrimPrefix(m.Subject, requestPrefix))
	if err != nil {
		r.refuse(m, 400, err)
		return
	}
	o := operate.Order{Place: place, Body: m.Data, ID: m.Header.Get(nats.MsgIdHdr), Person: m.Header.Get(outcome.HeaderPerson)}
	if text := m.Header.Get(outcome.HeaderWait); text != "" {
		if o.Wait, err = strconv.ParseBool(text); err != nil {
			r.refuse(m, 400, fmt.Errorf("header %s must be true or false", outcome.HeaderWait))
			return
		}
	}
	bounded, cancel := context.WithTimeout(ctx, r.maxAge+outcomeMargin)
	defer cancel()
	answer, err := r.sender.Do(bounded, o)
	switch _, pending := errors.AsType[*operate.PendingError](err); {
	case pending:
		r.refuse(m, 504, err)
	case err != nil:
		r.refuse(m, 500, err)
	default:
		r.reply(m, nil, answer)
	}
}

// refuse replies without an outcome, as package micro does.
func (r *requests) refuse(m *nats.Msg, code int, problem error) {
	r.reply(m, probe.Refusal(code, problem), map[string]string{"error": problem.Error()})
}

func (r *requests) reply(m *nats.Msg, header nats.Header, body any) {
	data, err := json.Marshal(body)
	if err == nil {
		err = m.RespondMsg(&nats.Msg{Header: header, Data: data})
	}
	if err != nil {
		r.log.Warn("replying to a request for a command", "subject", m.Subject, "error", err)
	}
}
