package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
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

func inputChecks() []Check {
	return []Check{{
		"input-injection", "SQL Injection Prevention", "SQL in topics and payloads of a controller; dead letters, and tables before and after",
		"see `f2mesh status`: a stage that does not run gives no dead letters; restore missing tables from a backup", inputInjection,
	}}
}

// letterWait is how long a hostile message may take to a dead letter.
const letterWait = 20 * time.Second

// injection is a message with SQL in it. The marker tells its dead letter.
type injection struct{ topic, payload, marker string }

func hostileMessages(mac string) []injection {
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

// inputInjection publishes as a controller does, and waits for what the stages say.
func inputInjection(ctx context.Context, m *Mesh) Finding {
	devices, err := m.devices(1)
	if err != nil {
		return notChecked("%v", err)
	}
	before, err := m.tables(ctx)
	if err != nil {
		return failed("the tables cannot be listed: %v", err)
	}
	nc, err := m.natsUser(ctx, operatorNATS)
	if err != nil {
		return failed("%v", err)
	}
	defer nc.Close()
	letters, err := nc.SubscribeSync("f2.dead.>")
	if err == nil {
		err = nc.FlushTimeout(mqttTimeout)
	}
	if err != nil {
		return failed("dead letters cannot be seen: %v", err)
	}
	messages := hostileMessages(devices[0].mac)
	if err := m.send(devices[0], messages); err != nil {
		return failed("cannot be tried: %v", err)
	}
	problems := unanswered(ctx, nc, letters, messages)
	after, err := m.tables(ctx)
	if err != nil {
		return failed("the tables cannot be listed: %v", err)
	}
	return verdict(append(problems, gone(before, after)...), "%d hostile messages became dead letters, %d tables are what they were", len(messages), len(after))
}

// send publishes all, again from the start if the real controller comes between.
func (m *Mesh) send(d device, messages []injection) (err error) {
	config, err := m.tls()
	if err != nil {
		return err
	}
	config.Certificates = []tls.Certificate{d.certificate}
	for range partyAttempts {
		var c *client
		if c, err = m.dial("ssl://"+m.address(m.Ports.MQTTTLS), "", "", d.mac, config); err != nil {
			continue
		}
		for _, h := range messages {
			if err = done(c.Publish(h.topic, 1, false, h.payload)); err != nil {
				break
			}
		}
		c.Disconnect(100)
		if err == nil {
			return nil
		}
	}
	return err
}

// unanswered are the messages that no dead letter came of.
func unanswered(ctx context.Context, nc *nats.Conn, letters *nats.Subscription, messages []injection) (problems []string) {
	ctx, cancel := context.WithTimeout(ctx, letterWait)
	defer cancel()
	open := map[string]bool{}
	for _, h := range messages {
		open[h.marker] = true
	}
	for len(open) > 0 {
		letter, err := letters.NextMsgWithContext(ctx)
		if err != nil {
			break
		}
		body := refusedBody(ctx, nc, letter)
		for mark := range open {
			if strings.Contains(letter.Header.Get(deadletter.HeaderTopic), mark) || bytes.Contains(body, []byte(mark)) {
				delete(open, mark)
			}
		}
	}
	if len(open) > 0 {
		problems = append(problems, fmt.Sprintf("%d of %d hostile messages gave no dead letter within %s", len(open), len(messages), letterWait))
	}
	return problems
}

// refusedBody is the body that a letter is about: in the letter, or in RAW where the
// letter says.
func refusedBody(ctx context.Context, nc *nats.Conn, letter *nats.Msg) []byte {
	sequence, err := strconv.ParseUint(letter.Header.Get(deadletter.HeaderRawSequence), 10, 64)
	if err != nil {
		return letter.Data
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil
	}
	raw, err := js.Stream(ctx, stream.Raw)
	if err != nil {
		return nil
	}
	m, err := raw.GetMsg(ctx, sequence)
	if err != nil {
		return nil
	}
	return m.Data
}

// tables lists all tables with their columns, by database.
func (m *Mesh) tables(ctx context.Context) ([]string, error) {
	var all []string
	for _, database := range []string{metadata, telemetry, registry} {
		conn, err := m.role(ctx, superuser, database)
		if err != nil {
			return nil, err
		}
		rows, err := conn.Query(ctx, `SELECT current_database() || '.' || table_schema || '.' || table_name
			FROM information_schema.tables WHERE table_type = 'BASE TABLE'
			AND table_schema NOT IN ('pg_catalog', 'information_schema') AND table_schema NOT LIKE '\_timescaledb%'
			AND table_schema NOT LIKE 'pg\_%'`)
		if err != nil {
			hangUp(ctx, conn)
			return nil, err
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		hangUp(ctx, conn)
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	return all, nil
}

func gone(before, after []string) (problems []string) {
	for _, table := range before {
		if !slices.Contains(after, table) {
			problems = append(problems, "table "+table+" is gone")
		}
	}
	return problems
}
