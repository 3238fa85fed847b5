package mosquitto

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// Sample are devices that the throw-away broker is asked about.
type Sample struct {
	In  []topic.MAC // may use their topics
	Out []topic.MAC // may not
}

const (
	trialSocket   = "socket"
	nobodyFile    = "nobody"        // an ACL that grants nothing; later versions refuse /dev/null
	trialPatience = 5 * time.Minute // an ACL of 100,000 controllers takes the half
)

// try starts a broker of its own on a copy of the files and asks it what the sample
// may do. Nobody else reaches it: its listener for questions is a socket in a
// folder that is closed to others, and its other one lets in who has a certificate,
// to do nothing.
func (g *Gate) try(ctx context.Context, files []listFile, sample Sample, spell spellings) (err error) {
	ctx, cancel := context.WithTimeout(ctx, trialPatience)
	defer cancel()
	if err := sweepTrials(g.folder); err != nil {
		return err
	}
	dir, held, err := holdTrial(g.folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir), held.Close()) }()
	if err := g.fillTrial(dir, files); err != nil {
		return err
	}
	program, err := find()
	if err != nil {
		return err
	}
	broker, err := process.Start(process.Config{
		Path: program, Args: []string{"-c", filepath.Join(dir, confFile)}, Dir: dir,
		Credential: g.owner.Credential(), Parse: parseLine, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer func() { _ = broker.Kill() }() // its end is not what we ask
	return question(ctx, broker, dir, sample, spell)
}

func (g *Gate) fillTrial(dir string, files []listFile) error {
	number, err := port.Pick("127.0.0.1", 0)
	if err != nil {
		return err
	}
	certificate, key, err := throwAwayPair()
	if err != nil {
		return err
	}
	conf := fmt.Sprintf(`per_listener_settings true
persistence false
log_dest stderr
listener 0 %[3]s
allow_anonymous true
acl_file %[1]s/%[4]s
listener %[2]d 127.0.0.1
allow_anonymous false
require_certificate true
use_identity_as_username true
acl_file %[1]s/%[9]s
cafile %[1]s/%[5]s
crlfile %[1]s/%[6]s
certfile %[1]s/%[7]s
keyfile %[1]s/%[8]s
`, dir, number, trialSocket, aclFile, caFile, deviceCRLFile, serverCertFile, serverKeyFile, nobodyFile)
	files = append([]listFile{{nobodyFile, nil}, {serverCertFile, certificate}, {serverKeyFile, key}, {confFile, []byte(conf)}}, files...)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, f := range files {
		if err := g.owner.WriteNew(root, f.name, f.data, 0o600); err != nil {
			return err
		}
	}
	return g.owner.Own(dir)
}

// cutOff tells an answer from the lack of one: the broker does not serve yet, or it
// ended before it did, for its first listener is open while it reads what the other
// needs.
func cutOff(err error) bool {
	_, network := errors.AsType[*net.OpError](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// throwAwayPair is for a listener that nobody connects to.
func throwAwayPair() (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}), nil
}

// question waits until the broker serves, or has ended because of what it read, and
// tries the sample's topics.
func question(ctx context.Context, broker *process.Process, dir string, sample Sample, spell spellings) error {
	folder, err := os.Open(dir) //nolint:gosec // our own
	if err != nil {
		return err
	}
	defer func() { _ = folder.Close() }()
	// A socket's address has 107 bytes, a path may have more.
	socket := fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), trialSocket)
	for {
		err := ask(ctx, socket, sample, spell)
		if !cutOff(err) {
			return err
		}
		select {
		case <-broker.Done():
			return fmt.Errorf("the broker does not take them: %s", broker.Tail())
		case <-ctx.Done():
			return fmt.Errorf("waiting for a throw-away broker: %w", ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}
