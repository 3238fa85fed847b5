package mosquitto

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

var update = flag.Bool("update", false, "write testdata/access.txt anew")

// lines is a log that a test reads.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.all.Reset()
	return l.all.String()
}

// party is somebody who comes to a listener, and how.
type party struct {
	name, user  string
	certificate bool // device's
}

// probe is a user who may do everything, for the test alone.
const probe = "probe"

// TestAccess compares who gets in at which listener, as which client, and what they may
// do there, with a table: every user, listener, kind of topic and client id. After a
// change that is meant, `go test ./pkg/server/mosquitto -run Access -update` writes it.
func TestAccess(t *testing.T) {
	t.Parallel()
	log := &lines{}
	b := newBench(t)
	b.cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b.cfg.Users = map[string]string{"nobody": "x", probe: "x"}
	parties := []party{{name: "anonymous"}, {name: "nobody (no line in the ACL)", user: "nobody"}}
	for _, c := range credential.Of(credential.MQTT) {
		for _, user := range []string{c.User, credential.Alternate(c.User)} {
			b.cfg.Users[user] = "the password of " + user
			parties = append(parties, party{name: user, user: user})
		}
	}
	b.writeDevices(device, neighbor)
	file := filepath.Join(b.cfg.Dir, aclFile)
	rights, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(rights, []byte("\nuser "+probe+"\ntopic readwrite #\n")...), 0o600))
	b.start()

	var table bytes.Buffer
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(&table, "# Made by go test ./pkg/server/mosquitto -run Access -update")
	fmt.Fprintln(&table, "# C and D are controllers; C's certificate is shown at 8883. OWN, BRIDGE, D: as which client those get in who ask for their")
	fmt.Fprintln(&table, "# own name's client id, the bridge's, and D's. Then what they may read and write. - is nothing, or refused.")
	fmt.Fprintf(out, "LISTENER\tUSER\tOWN\tBRIDGE\tD\t%s\n", strings.Join(topicsTried(), "\t"))
	for _, l := range []string{"services 1883", "people 1884", "people 9001", "controllers 8883"} {
		for _, p := range parties {
			p.certificate = l == "controllers 8883"
			row := []string{l, p.name}
			for _, id := range []string{p.user, "f2mesh-bridge", neighbor.Dashed()} {
				row = append(row, b.comesIn(l, p, id, log))
			}
			if row[3] != "-" {
				row = append(row, b.rights(l, p)...)
			}
			for range 5 + len(topicsTried()) - len(row) {
				row = append(row, "-")
			}
			fmt.Fprintln(out, strings.Join(row, "\t"))
		}
	}
	require.Equal(t, "-", b.comesIn("controllers 8883", party{user: "bridge"}, "f2mesh-bridge", log), "without a certificate")
	require.NoError(t, out.Flush())
	path := filepath.Join("testdata", "access.txt")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, table.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), table.String())
}

// dialAs opens a connection; nil where TLS does not let it in.
func (b *bench) dialAs(listener string, p party) net.Conn {
	b.t.Helper()
	config := b.tls()
	config.MaxVersion = tls.VersionTLS12 // by which a client learns of a refusal in the handshake
	if p.certificate {
		config.Certificates = []tls.Certificate{b.certificate(b.authority, b.devices, device)}
	}
	var conn net.Conn
	var err error
	switch listener {
	case "services 1883":
		conn, err = net.Dial("tcp", b.broker.Address()) //nolint:noctx // loopback
	case "people 1884":
		conn, err = net.Dial("tcp", b.broker.PeopleAddress()) //nolint:noctx // loopback
	case "controllers 8883":
		conn, err = tls.Dial("tcp", b.broker.TLSAddress(), config) //nolint:noctx // loopback
		if err != nil {
			return nil
		}
	case "people 9001":
		dialer := websocket.Dialer{TLSClientConfig: config, Subprotocols: []string{"mqtt"}}
		ws, _, err := dialer.DialContext(b.t.Context(), "wss://"+mqttHost(b.broker.WebSocketPort()), nil) //nolint:bodyclose // none
		require.NoError(b.t, err)
		return wsConn{&framed{Conn: ws}}
	}
	require.NoError(b.t, err)
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// wsConn is a WebSocket as a net.Conn.
type wsConn struct{ *framed }

func (w wsConn) SetDeadline(t time.Time) error { return w.UnderlyingConn().SetDeadline(t) }

// comesIn answers the client id that somebody gets, or "-".
func (b *bench) comesIn(listener string, p party, id string, log *lines) string {
	b.t.Helper()
	if id == "" {
		id = "any"
	}
	log.take()
	q := b.enters(listener, p, id)
	if q == nil {
		return "-"
	}
	defer func() { _ = q.conn.Close() }()
	user := p.user // and not another of the bench's clients
	if p.certificate {
		user = device.Dashed()
	}
	as := regexp.MustCompile(`New client connected from \S+ as (\S+) \(.*u'` + user + `'`)
	var text string
	require.Eventually(b.t, func() bool { text += log.take(); return as.MatchString(text) }, patience, time.Millisecond, "%s", text)
	got := as.FindStringSubmatch(text)[1]
	return strings.NewReplacer(device.Dashed(), "C", neighbor.Dashed(), "D").Replace(got)
}

// enters connects by MQTT 5, which tells what is denied.
func (b *bench) enters(listener string, p party, id string) *questioner {
	b.t.Helper()
	conn := b.dialAs(listener, p)
	if conn == nil {
		return nil
	}
	var flags byte = 0x02
	hello := field([]byte{}, id)
	if p.user != "" {
		flags |= flagUser | flagPassword
		hello = field(field(hello, p.user), b.cfg.Users[p.user])
	}
	body := append(field(nil, "MQTT"), 5, flags, 0, 0, 0)
	_, err := conn.Write(packet(0x10, append(body, hello...)))
	require.NoError(b.t, err)
	q := &questioner{conn: conn, in: bufio.NewReader(conn)}
	kind, answer, err := q.read()
	if err != nil || kind != 0x20 || answer[1] != 0 {
		_ = conn.Close()
		return nil
	}
	return q
}

// topicsTried are one of each kind.
func topicsTried() []string {
	return []string{
		"tele/f2-C/x", "stat/f2-C/x", "cmnd/f2-C/sensor-mode/1/x", "cmnd/f2-C/x", "tele/f2-D/x", "stat/f2-D/x", "cmnd/f2-D/sensor-mode/1/x", "cmnd/f2-D/x",
		"x", "$SYS/broker/log/N", "$CONTROL/x",
	}
}

// rights are what somebody may do with each of topicsTried.
func (b *bench) rights(listener string, p party) (all []string) {
	b.t.Helper()
	other := b.enters("people 1884", party{user: probe}, "")
	require.NotNil(b.t, other)
	defer func() { _ = other.conn.Close() }()
	q := b.enters(listener, p, "any")
	require.NotNil(b.t, q)
	defer func() { _ = q.conn.Close() }()
	for _, name := range topicsTried() {
		name = strings.NewReplacer("f2-C", "f2-"+string(device), "f2-D", "f2-"+string(neighbor)).Replace(name)
		writes, err := q.publish(name)
		require.NoError(b.t, err)
		switch reads := b.reads(q, other, name); {
		case reads && writes:
			all = append(all, "rw")
		case reads:
			all = append(all, "r")
		case writes:
			all = append(all, "w")
		default:
			all = append(all, "-")
		}
	}
	return all
}

// reads tells whether q gets what the probe publishes, or the broker itself. What was
// published before the PING comes before its answer.
func (b *bench) reads(q, other *questioner, name string) (arrived bool) {
	b.t.Helper()
	subscribe := append(field([]byte{0, 1, 0}, name), 0)
	_, err := q.conn.Write(packet(0x82, subscribe))
	require.NoError(b.t, err)
	_, _ = q.until(0x90)
	if strings.HasPrefix(name, "$") {
		require.NoError(b.t, LogIn(b.t.Context(), b.broker.Address(), "bridge", b.cfg.Users["bridge"])) // which it logs
	} else {
		_, err := other.publish(name)
		require.NoError(b.t, err)
	}
	_, err = q.conn.Write([]byte{0xc0, 0})
	require.NoError(b.t, err)
	seen, err := q.until(0xd0)
	require.NoError(b.t, err)
	_, err = q.conn.Write(packet(0xa2, field([]byte{0, 1, 0}, name)))
	require.NoError(b.t, err)
	_, err = q.until(0xb0)
	require.NoError(b.t, err)
	return slices.Contains(seen, name)
}

// until reads to a packet of a kind, and answers the topics that were published before.
func (q *questioner) until(last byte) (topics []string, err error) {
	for {
		kind, body, err := q.read()
		if err != nil || kind&0xf0 == last {
			return topics, err
		}
		if kind&0xf0 == 0x30 {
			n := binary.BigEndian.Uint16(body)
			topics = append(topics, string(body[2:2+n]))
		}
	}
}
