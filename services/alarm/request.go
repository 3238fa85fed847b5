package alarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// changeTimeout bounds one change.
const changeTimeout = 5 * time.Second

// takeChanges makes the changes that people ask for, one after the other.
func (s *Server) takeChanges(ctx context.Context, nc *nats.Conn) error {
	return probe.Serve(ctx, nc, serviceName, alert.ChangeSubject, changeTimeout, func(ctx context.Context, data []byte) (any, error) {
		return s.change(ctx, data)
	})
}

// change stores what a person makes of an alarm. It tries again if the alarm changes meanwhile.
func (s *Server) change(ctx context.Context, data []byte) (next alert.Entry, err error) {
	r, err := alert.ParseChange(data)
	if err != nil {
		return next, probe.RefusedError{Err: err}
	}
	for {
		m, err := s.streams.Message(ctx, stream.Alarm, stream.Query{Last: alert.Prefix + r.ID})
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return next, probe.RefusedError{Err: errors.New("there is no such alarm")}
		}
		if err != nil {
			return next, fmt.Errorf("reading the alarm: %w", err)
		}
		now, err := alert.Parse(m.Data)
		if err != nil {
			return next, err
		}
		if next, err = r.Apply(now, time.Now().UTC()); err != nil {
			return next, probe.RefusedError{Err: err}
		}
		if _, err = Publish(ctx, s.streams.JetStream(), &next, m.Sequence); !errors.Is(err, errOvertaken) {
			return next, err
		}
	}
}

// askForChange has the service make a change.
func askForChange(ctx context.Context, nc *nats.Conn, r *alert.ChangeRequest) (next alert.Entry, err error) {
	data, err := json.Marshal(r)
	if err != nil {
		return next, err
	}
	bounded, cancel := context.WithTimeout(ctx, 2*changeTimeout)
	defer cancel()
	reply, err := nc.RequestWithContext(bounded, alert.ChangeSubject, data)
	if err != nil {
		return next, fmt.Errorf("asking the alarm service, which makes all changes: %w", err)
	}
	if refusal := reply.Header.Get(micro.ErrorHeader); refusal != "" {
		return next, errors.New(refusal)
	}
	return alert.Parse(reply.Data)
}
