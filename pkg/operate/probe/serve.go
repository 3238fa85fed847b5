package probe

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
)

// RefusedError is why a request was certainly not carried out.
type RefusedError struct{ Err error }

func (e RefusedError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e RefusedError) Unwrap() error { return e.Err }

// Serve takes the requests on a subject, one after the other, and of several instances of the service one
// takes each. It replies with the result in JSON, or with the error as package micro has it: code 400 for a
// RefusedError, and 500 for another, after which the request may have been carried out. Each has so much
// time, and none has any after ctx.
func Serve(ctx context.Context, nc *nats.Conn, service, subject string, timeout time.Duration, serve func(ctx context.Context, data []byte) (any, error)) error {
	_, err := nc.QueueSubscribe(subject, MicroPrefix+service, func(m *nats.Msg) {
		bounded, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		reply := &nats.Msg{}
		result, err := serve(bounded, m.Data)
		if err == nil {
			reply.Data, err = json.Marshal(result)
		}
		if _, refused := errors.AsType[RefusedError](err); refused {
			reply.Header = Refusal(http.StatusBadRequest, err)
		} else if err != nil {
			reply.Header = Refusal(http.StatusInternalServerError, err)
		}
		_ = m.RespondMsg(reply) // who asked may be gone
	})
	return err
}
