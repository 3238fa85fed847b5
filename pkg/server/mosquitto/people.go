package mosquitto

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/f2mesh/f2mesh/pkg/server/web"
)

// Bounds of the people's listeners.
const (
	peopleAtOnce   = 200              // connections of each listener, of which one source has web.MaxOfSource
	peoplePatience = 10 * time.Second // for TLS, the upgrade and CONNECT; to stop
	slowestPerson  = 30 * time.Second // to take what is sent
	peopleHeaders  = 8 << 10          // of an upgrade
	peopleChunk    = 32 << 10
)

// People says where people come in. Mosquitto has one list of passwords for all its
// listeners, so it cannot keep people out of the services' and services out of the
// people's. It has no such listener on the network, therefore, but a socket, and People
// stands before it: it adds a key to each password. What Mosquitto knows of a person
// is the hash of both together, of a service that of the password alone. So each is
// refused at the other's listener, by Mosquitto, whatever they say.
//
// On the socket the client id is the user's name. A person's session ends with its
// connection: nothing is kept for who is away.
type People struct {
	// Dir is the broker's folder, which has the key; Socket is where Mosquitto listens
	// for us. Its path may be longer than the 107 bytes that a socket's may have.
	Dir, Socket string
	// Plain (MQTT) and WebSocket (MQTT over WebSocket and TLS) are hosts and ports.
	Plain, WebSocket string
	// CertFile and KeyFile are the server's.
	CertFile, KeyFile string
	// Origins are the web pages, such as https://console.example.org, whose scripts may
	// connect. Those of the WebSocket's own host always may, whatever their port.
	Origins []string
	Log     *slog.Logger
}

// Doors are the people's listeners. They are safe for concurrent use.
type Doors struct {
	cfg    People
	key    string
	folder *os.File // of the socket
	stop   context.CancelFunc
	ctx    context.Context // ends the connections, which outlive any call
	wait   sync.WaitGroup
	plain  net.Listener
	web    *http.Server
}

// Open listens. The broker may start later: until it serves, nobody gets in.
func (p People) Open() (*Doors, error) {
	key, err := readPeopleKey(p.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening the people's listeners: %w", err)
	}
	certificate, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("opening the people's listeners: %w", err)
	}
	d := &Doors{cfg: p, key: key}
	if d.folder, err = os.Open(filepath.Dir(p.Socket)); err != nil {
		return nil, fmt.Errorf("opening the people's listeners: %w", err)
	}
	browsers, err := d.listen()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the people's listeners: %w", err), d.folder.Close())
	}
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.web = &http.Server{
		Handler: http.HandlerFunc(d.upgrade), ReadHeaderTimeout: peoplePatience, ReadTimeout: peoplePatience, IdleTimeout: peoplePatience,
		MaxHeaderBytes: peopleHeaders, ErrorLog: slog.NewLogLogger(p.Log.Handler(), slog.LevelDebug),
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	d.wait.Go(func() { d.accept(web.LimitListener(d.plain, peopleAtOnce)) })
	d.wait.Go(func() {
		_ = d.web.Serve(tls.NewListener(web.LimitListener(browsers, peopleAtOnce), config))
	})
	return d, nil
}

func (d *Doors) listen() (browsers net.Listener, err error) {
	if d.plain, err = net.Listen("tcp", d.cfg.Plain); err != nil { //nolint:noctx // binding a port does not block
		return nil, err
	}
	if browsers, err = net.Listen("tcp", d.cfg.WebSocket); err != nil { //nolint:noctx // binding a port does not block
		return nil, errors.Join(err, d.plain.Close())
	}
	return browsers, nil
}

// Close ends the listeners and all their connections.
func (d *Doors) Close() error {
	d.stop()
	err := errors.Join(d.plain.Close(), d.web.Close())
	d.wait.Wait()
	return errors.Join(err, d.folder.Close())
}

func (d *Doors) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no more files: it passes
			time.Sleep(100 * time.Millisecond)
			continue
		}
		d.wait.Go(func() { d.serve(conn) })
	}
}

func (d *Doors) upgrade(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{
		HandshakeTimeout: peoplePatience, Subprotocols: []string{"mqtt", "mqttv3.1"}, CheckOrigin: d.welcome,
		ReadBufferSize: peopleChunk, WriteBufferSize: peopleChunk,
	}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // it has answered
	}
	d.wait.Go(func() { d.serve(&framed{Conn: conn}) })
}

// welcome tells whether a page's scripts may connect. Programs name no page.
func (d *Doors) welcome(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(d.cfg.Origins, origin) {
		return true
	}
	page, err := url.Parse(origin)
	here := &url.URL{Host: r.Host}
	return err == nil && page.Hostname() != "" && strings.EqualFold(page.Hostname(), here.Hostname())
}

// person is a connection from outside.
type person interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	RemoteAddr() net.Addr
}

// serve hands one connection on, with what CONNECT says changed.
func (d *Doors) serve(from person) {
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { _ = from.Close() })
	_ = from.SetReadDeadline(time.Now().Add(peoplePatience))
	hello, err := readConnect(from)
	if err == nil {
		hello, err = admit(hello, d.key)
	}
	if err != nil {
		d.cfg.Log.Debug("turned away at the people's listener", "address", from.RemoteAddr().String(), "error", err)
		return
	}
	_ = from.SetReadDeadline(time.Time{})
	socket := fmt.Sprintf("/proc/self/fd/%d/%s", d.folder.Fd(), filepath.Base(d.cfg.Socket))
	broker, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		d.cfg.Log.Warn("the broker does not serve people", "error", err)
		return
	}
	context.AfterFunc(ctx, func() { _ = broker.Close() })
	if _, err := broker.Write(hello); err != nil {
		return
	}
	d.wait.Go(func() {
		defer cancel()
		_, _ = io.Copy(broker, struct{ io.Reader }{from})
	})
	_ = d.deliver(from, broker)
}

// deliver copies what the broker sends, as long as somebody takes it. Of who does not get
// in, it says where from: the broker knows the socket alone.
func (d *Doors) deliver(to person, broker io.Reader) error {
	chunk := make([]byte, peopleChunk)
	for first := true; ; first = false {
		n, err := broker.Read(chunk)
		if err != nil {
			return err
		}
		if first && n >= 4 && chunk[0] == 0x20 && chunk[3] != 0 { // CONNACK
			d.cfg.Log.Warn("login refused at the people's listener", "address", to.RemoteAddr().String(), "reason_code", chunk[3])
		}
		_ = to.SetWriteDeadline(time.Now().Add(slowestPerson))
		if _, err := to.Write(chunk[:n]); err != nil {
			return err
		}
	}
}

// framed is a WebSocket as a stream of bytes: MQTT does not mind its frames.
type framed struct {
	*websocket.Conn
	frame io.Reader
}

func (f *framed) Read(p []byte) (int, error) {
	for {
		if f.frame == nil {
			kind, frame, err := f.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("MQTT is in binary frames alone")
			}
			f.frame = frame
		}
		n, err := f.frame.Read(p)
		if errors.Is(err, io.EOF) {
			f.frame, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (f *framed) Write(p []byte) (int, error) {
	return len(p), f.WriteMessage(websocket.BinaryMessage, p)
}
