package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Query names one stored message.
type Query struct {
	// Last is a subject, with wildcards, whose last message is meant.
	Last string `json:"last_by_subj,omitempty"`
	// Next is a subject, with wildcards, whose first message is meant from Sequence
	// or Start on.
	Next     string     `json:"next_by_subj,omitempty"`
	Sequence uint64     `json:"seq,omitempty"`
	Start    *time.Time `json:"start_time,omitempty"`
}

// Message asks the stream's leader for a stored message, which sees all that was
// acknowledged; a direct get may come from a replica that lags behind. There is
// none if the error is jetstream.ErrMsgNotFound.
func (c *Client) Message(ctx context.Context, streamName string, q Query) (*jetstream.RawStreamMsg, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	reply, err := c.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+streamName, body)
	if err != nil {
		return nil, fmt.Errorf("reading a message of %s: %w", streamName, err)
	}
	m, err := parseMessage(reply.Data)
	if err != nil {
		err = fmt.Errorf("reading a message of %s: %w", streamName, err)
	}
	return m, err
}

func parseMessage(data []byte) (*jetstream.RawStreamMsg, error) {
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, err
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, jetstream.ErrMsgNotFound
	case answer.Error != nil:
		return nil, answer.Error
	case answer.Message == nil:
		return nil, errors.New("the response contains no message")
	}
	s := answer.Message
	m := &jetstream.RawStreamMsg{Subject: s.Subject, Sequence: s.Sequence, Header: nats.Header{}, Data: s.Data, Time: s.Time}
	if len(s.Header) > 0 {
		// A damaged one is left out: a reader of many messages must not stop at it.
		if header, err := nats.DecodeHeadersMsg(s.Header); err == nil {
			m.Header = header
		}
	}
	return m, nil
}
