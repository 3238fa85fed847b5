package doctor

import (
	"bytes"
	"context"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

// logWait is how long a line may take to come into the log.
const logWait = 10 * time.Second

// failedLogins tries a user that does not exist at both servers.
func failedLogins(ctx context.Context, m *Mesh) Finding {
	files := m.logs()
	if len(files) == 0 {
		return notChecked("the mesh writes no log to a file: look in what keeps its log")
	}
	users := map[string]string{"NATS": marker(), "PostgreSQL": marker()}
	if m.natsLogin(nats.UserInfo(users["NATS"], marker())) == nil {
		return failed("NATS let a stranger in")
	}
	if conn, err := m.connectPostgres(ctx, users["PostgreSQL"], marker(), telemetry, "verify-full"); err == nil {
		hangUp(ctx, conn)
		return failed("PostgreSQL let a stranger in")
	}
	var problems []string
	for server, user := range users {
		if !appears(ctx, files, user) {
			problems = append(problems, server+" logged nothing of the attempt")
		}
	}
	return verdict(problems, "NATS and PostgreSQL logged the attempts")
}

// appears waits until a file has the text.
func appears(ctx context.Context, files []string, text string) bool {
	ctx, cancel := context.WithTimeout(ctx, logWait)
	defer cancel()
	for {
		for _, path := range files {
			if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(text)) { //nolint:gosec // the mesh's log
				return true
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
}
