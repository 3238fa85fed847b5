package doctor

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// injection is a message with SQL. The marker identifies its dead letter.
type injection struct{ topic, payload, marker string }

func injections(mac string) []injection {
	var all []injection
	for _, sql := range []string{
		`'; DROP TABLE measurement; --`, `"; DROP TABLE fleet."Device" CASCADE; --`, `' OR '1'='1`, `$$; DELETE FROM device_event; $$`,
	} {
		base, topicMark, payloadMark := "tele/f2-"+mac+"/sensor-mode/J1/sensor-1", marker(), marker()
		all = append(all,
			injection{base + sql + topicMark, `{"timestamp":"2024-01-01 00:00:00","data":"01 03"}`, topicMark},
			injection{base, fmt.Sprintf(`{"timestamp":%q,"data":%q}`, sql+payloadMark, sql), payloadMark})
	}
	return all
}

func inputInjection(ctx context.Context, t *Target) Finding {
	t.needDatabase()
	d := t.needDevices(1)[0]
	before := t.tables(ctx)
	nc := t.natsUser(ctx, operatorNATS)
	letters := must(nc.SubscribeSync("f2.dead.>"))
	ensure(nc.FlushTimeout(natsTimeout))
	messages := injections(d.mac)
	repeat(ctx, func() Finding {
		c := must(t.session(d).connect())
		defer c.Disconnect(100)
		for _, m := range messages {
			ensure(done(c.Publish(m.topic, 1, false, m.payload)))
		}
		return Finding{}
	})
	problems := withoutLetter(ctx, nc, letters, messages)
	after := t.tables(ctx)
	return verdict(append(problems, missing(before, after)...), "%d messages with SQL became dead letters, all %d tables are there", len(messages), len(after))
}

// withoutLetter waits for the dead letters of the messages, and reports how many are missing.
func withoutLetter(ctx context.Context, nc *nats.Conn, letters *nats.Subscription, messages []injection) (problems []string) {
	const letterWait = 20 * time.Second
	ctx, cancel := context.WithTimeout(ctx, letterWait)
	defer cancel()
	waiting := slices.Clone(messages)
	for len(waiting) > 0 {
		letter, err := letters.NextMsgWithContext(ctx)
		if err != nil {
			return []string{fmt.Sprintf("%d of %d messages with SQL did not become dead letters within %s", len(waiting), len(messages), letterWait)}
		}
		body := refusedBody(ctx, nc, letter)
		waiting = slices.DeleteFunc(waiting, func(m injection) bool {
			return strings.Contains(letter.Header.Get(deadletter.HeaderTopic), m.marker) || bytes.Contains(body, []byte(m.marker))
		})
	}
	return nil
}

// refusedBody is the body that a dead letter is about: its own, or the one in RAW that its
// header names.
func refusedBody(ctx context.Context, nc *nats.Conn, letter *nats.Msg) []byte {
	sequence, err := strconv.ParseUint(letter.Header.Get(deadletter.HeaderRawSequence), 10, 64)
	if err != nil {
		return letter.Data
	}
	raw := must(must(jetstream.New(nc)).Stream(ctx, stream.Raw))
	m, err := raw.GetMsg(ctx, sequence)
	if err != nil {
		return nil
	}
	return m.Data
}

func (t *Target) tables(ctx context.Context) (all []string) {
	for _, database := range []string{metadata, telemetry, registry} {
		conn := must(t.role(ctx, superuser, database))
		rows, _ := conn.Query(ctx, `SELECT current_database() || '.' || table_schema || '.' || table_name
			FROM information_schema.tables WHERE table_type = 'BASE TABLE'
			AND table_schema NOT IN ('pg_catalog', 'information_schema') AND table_schema NOT LIKE '\_timescaledb%'
			AND table_schema NOT LIKE 'pg\_%'`)
		names, err := pgx.CollectRows(rows, pgx.RowTo[string]) // also Query's error
		hangUp(ctx, conn)
		all = append(all, must(names, err)...)
	}
	return all
}

func missing(before, after []string) (problems []string) {
	for _, table := range before {
		if !slices.Contains(after, table) {
			problems = append(problems, "table "+table+" is missing")
		}
	}
	return problems
}
