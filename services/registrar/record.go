package registrar

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/secret/rotation"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// RecordRotation puts the rotation on the audit trail, without the secret. The registrar
// copies it to its table.
func RecordRotation(ctx context.Context, nc *nats.Conn, result rotation.Rotated, failure error, log *slog.Logger) error {
	detail := fmt.Sprintf("%s: user %s, version %s (%s)", result.Secret, result.To, result.New, result.Source)
	if failure != nil {
		detail = result.Secret + ": not completed"
	}
	m, err := AuditMessage(Event{Time: time.Now().UTC(), Actor: "operator", Action: RotateSecret, Detail: detail})
	if err != nil {
		return err
	}
	streams, err := stream.NewClient(nc, natsfiles.Files, log)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := streams.Ensure(bounded, stream.Audit); err != nil {
		return fmt.Errorf("recording in the audit trail: %w", err)
	}
	if _, err := streams.Store(bounded, stream.Audit, []*nats.Msg{m}); err != nil {
		return fmt.Errorf("recording in the audit trail: %w", err)
	}
	return nil
}
