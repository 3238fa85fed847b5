package mosquitto

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
)

// errorTopic is where the broker publishes what it logs as an error.
const errorTopic = "$SYS/broker/log/E"

// errUnreadable means that the broker went on without a file that it could not read.
var errUnreadable = errors.New("the broker cannot read its files")

// errorLog is a session that gets the errors that the broker logs. The nil errorLog
// gets none.
type errorLog struct{ conn net.Conn }

// openErrorLog returns once the broker sends its errors.
func openErrorLog(ctx context.Context, address string, c client) (*errorLog, error) {
	conn, err := dial(ctx, address, c)
	if err != nil {
		return nil, err
	}
	l := &errorLog{conn}
	if err := subscribe(conn, errorTopic, 0); err != nil { // QoS 0 needs no acknowledgements
		l.close()
		return nil, err
	}
	return l, nil
}

// largestLogLine bounds a packet with its line.
const largestLogLine = 64 << 10

// unreadable returns an error if the broker logged one about the lists up to now: what it
// logged before our PING comes before its answer.
func (l *errorLog) unreadable() error {
	if l == nil {
		return nil
	}
	if _, err := l.conn.Write([]byte{0xc0, 0}); err != nil {
		return err
	}
	var problem error
	for {
		kind, body, err := readPacket(l.conn, largestLogLine)
		switch {
		case err != nil:
			return fmt.Errorf("reading the broker's log: %w", err)
		case kind == 0xd0:
			return problem
		case kind&0xf0 == 0x30 && len(body) >= 2:
			line := body[min(len(body), 2+int(binary.BigEndian.Uint16(body))):]
			if problem == nil && namesList(string(line)) {
				problem = fmt.Errorf("%w: %s", errUnreadable, line)
			}
		}
	}
}

// namesList tells errors about the lists from those that clients cause.
func namesList(line string) bool {
	text := withoutTime(line)
	for _, name := range []string{deviceCRLFile, aclFile} {
		if strings.HasPrefix(text, "Error") && strings.Contains(text, "/"+name+`"`) {
			return true
		}
	}
	return false
}

func (l *errorLog) close() {
	if l != nil {
		_ = l.conn.Close()
	}
}
