package mosquitto

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
)

// inForceFile tells which lists the broker has read last: their digest and the
// broker's mark.
const inForceFile = "devices.applied"

// Lists say who comes in through the controllers' listener, and what for.
type Lists struct {
	// Devices may use their topics.
	Devices []topic.MAC
	// CAs are what certificates must come from, CRLs the revocation lists of their
	// issuing CAs, both in PEM.
	CAs, CRLs []byte
}

// Gate keeps the lists of the broker on a folder, whichever process runs it, and
// whether or not it runs now. It must be used by one process at a time, under a
// lock of the caller.
type Gate struct {
	// Login returns a user of the services' listener who may read the broker's log.
	// Without one, or when the broker refuses it, Commit cannot tell whether the broker
	// could read its files.
	Login func(context.Context) (user, password string, err error)

	owner  *account.Account
	folder string
}

// OpenGate returns the Gate of the broker folder dir, which it makes if need be.
func OpenGate(dir string) (*Gate, error) {
	owner, folder, err := place(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the broker's folder: %w", err)
	}
	return &Gate{owner: owner, folder: folder}, nil
}

// CRLs returns the revocation lists in place, nil if there are none yet.
func (g *Gate) CRLs() ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(g.folder, deviceCRLFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// CheckedLists is a set of lists that was checked and waits to be put in force.
type CheckedLists struct {
	gate   *Gate
	files  []listFile
	before []listFile // in place when it was prepared
	same   bool       // those are the same
}

type listFile struct {
	name string
	data []byte
}

// Prepare checks the lists. Nothing has changed for the broker that runs.
//
// The check must find everything that the broker would not read: Mosquitto 2.0 goes on
// without a file that it cannot read, so that a bad line in the ACL lets each controller
// publish as any other, and a bad revocation list lets revoked certificates in
// (TestUnreadableFiles).
func (g *Gate) Prepare(ctx context.Context, l Lists) (*CheckedLists, error) {
	spell, err := granted(ctx)
	if err != nil {
		return nil, fmt.Errorf("checking the broker's lists: %w", err)
	}
	controllers := deviceACL(l.Devices, spell)
	if err := errors.Join(checkTrust(l.CAs, l.CRLs, time.Now()), checkACL(controllers)); err != nil {
		return nil, fmt.Errorf("checking the broker's lists: %w", err)
	}
	c := &CheckedLists{gate: g, files: []listFile{{caFile, l.CAs}, {deviceCRLFile, l.CRLs}, {aclFile, acl(controllers)}}}
	for _, f := range c.files {
		if now, err := os.ReadFile(filepath.Join(g.folder, f.name)); err == nil {
			c.before = append(c.before, listFile{f.name, now})
		}
	}
	c.same = slices.EqualFunc(c.before, c.files, func(a, b listFile) bool { return bytes.Equal(a.data, b.data) })
	return c, nil
}

// Commit puts the lists in place, makes the broker read them if one runs, and
// returns once it has: from then on they hold. Sessions stay open, see Kick. When
// all that was so already it does nothing. If the broker cannot read them, Commit puts
// the earlier ones back.
func (c *CheckedLists) Commit(ctx context.Context) error {
	if err := c.commit(ctx); err != nil {
		return fmt.Errorf("changing the broker's lists: %w", err)
	}
	return nil
}

func (c *CheckedLists) commit(ctx context.Context) error {
	if !c.same {
		if err := c.gate.write(c.files); err != nil {
			return err
		}
	}
	broker, runs := running(c.gate.folder)
	if !runs || c.same && c.gate.reads(c.mark(broker)) {
		return nil
	}
	err := c.gate.reload(ctx, broker)
	if errors.Is(err, errUnreadable) {
		return errors.Join(err, c.gate.write(c.before), c.gate.reload(ctx, broker))
	}
	if err != nil {
		return err
	}
	return c.gate.write([]listFile{{inForceFile, c.mark(broker)}})
}

func (g *Gate) write(files []listFile) error {
	for _, f := range files {
		if err := g.owner.WriteFile(filepath.Join(g.folder, f.name), f.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// mark is what inForceFile says once the broker has read the lists.
func (c *CheckedLists) mark(broker instance) []byte {
	digest := sha256.New()
	for _, f := range c.files {
		sum := sha256.Sum256(f.data)
		digest.Write(sum[:])
	}
	return []byte(hex.EncodeToString(digest.Sum(nil)) + " " + broker.mark + "\n")
}

func (g *Gate) reads(mark []byte) bool {
	now, err := os.ReadFile(filepath.Join(g.folder, inForceFile))
	return err == nil && bytes.Equal(now, mark)
}

// reload signals the broker and waits until it has read its files. It does that
// between two turns of its loop and serves nobody meanwhile: a client that connects
// after the signal may be served in the turn that was under way, one that connects
// after that is served after the reading.
func (g *Gate) reload(ctx context.Context, broker instance) error {
	services, err := g.services(broker)
	if err != nil {
		return err
	}
	var asker client
	if g.Login != nil {
		if asker.user, asker.password, err = g.Login(ctx); err != nil {
			return err
		}
	}
	log, err := openErrorLog(ctx, services, asker)
	if err != nil && !errors.Is(err, ErrRefused) { // the lists count, whether or not the broker knows us
		return fmt.Errorf("reading the broker's log: %w", err)
	}
	defer log.close()
	if err := broker.signal(ctx, g.folder); err != nil {
		return err
	}
	for range 2 {
		// It may not know us and say so, which is an answer.
		if err := connect(ctx, services, asker); err != nil && !errors.Is(err, ErrRefused) {
			return fmt.Errorf("waiting for the broker: %w", err)
		}
	}
	return log.unreadable()
}

// services is the address of the broker's first listener.
func (g *Gate) services(broker instance) (string, error) {
	text, err := os.ReadFile(filepath.Join(g.folder, confFile))
	if err != nil {
		return "", fmt.Errorf("looking for the broker's listener: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 2 || fields[0] != "listener":
		case broker.host != "":
			return net.JoinHostPort(broker.host, fields[1]), nil
		case len(fields) == 3:
			return net.JoinHostPort(fields[2], fields[1]), nil
		}
	}
	return "", errors.New("looking for the broker's listener: mosquitto.conf has none")
}

// haveLists reports whether a Gate has been at work in a broker's folder.
func haveLists(folder string) error {
	for _, name := range []string{caFile, deviceCRLFile, aclFile} {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			return fmt.Errorf("the lists of controllers are not there yet: %w", err)
		}
	}
	return nil
}
