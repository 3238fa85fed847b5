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
	// Login answers a user of the services' listener, who asks the broker whether it
	// has read its lists. Without one nobody asks, which the broker refuses, and logs
	// as a failed login.
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

// CRLs answers the revocation lists in place, nil if there are none yet.
func (g *Gate) CRLs() ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(g.folder, deviceCRLFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// Change is a set of lists that was tried and waits to be put in force.
type Change struct {
	gate  *Gate
	files []listFile
	same  bool // the files in place are these
}

type listFile struct {
	name string
	data []byte
}

// Prepare checks the lists, and tries them on a throw-away broker if they are not
// those in place. Nothing has changed for the broker that runs. With sample, the
// throw-away broker also proves what devices of it may do.
func (g *Gate) Prepare(ctx context.Context, l Lists, sample Sample) (*Change, error) {
	spell, err := granted(ctx)
	if err != nil {
		return nil, fmt.Errorf("checking the broker's lists: %w", err)
	}
	controllers := deviceACL(l.Devices, spell)
	c := &Change{gate: g, files: []listFile{{caFile, l.CAs}, {deviceCRLFile, l.CRLs}, {aclFile, acl(controllers)}}}
	if err := checkTrust(l.CAs, l.CRLs, time.Now()); err != nil {
		return nil, fmt.Errorf("checking the broker's lists: %w", err)
	}
	if c.same = c.inPlace(); c.same {
		return c, nil
	}
	if err := checkACL(controllers); err != nil {
		return nil, fmt.Errorf("checking the broker's lists: %w", err)
	}
	if err := g.try(ctx, c.files, sample, spell); err != nil {
		return nil, fmt.Errorf("trying the broker's lists: %w", err)
	}
	return c, nil
}

func (c *Change) inPlace() bool {
	for _, f := range c.files {
		now, err := os.ReadFile(filepath.Join(c.gate.folder, f.name))
		if err != nil || !bytes.Equal(now, f.data) {
			return false
		}
	}
	return true
}

// Commit puts the lists in place, makes the broker read them if one runs, and
// returns once it has: from then on they hold. Sessions stay open, see Kick. When
// all that was so already it does nothing.
func (c *Change) Commit(ctx context.Context) error {
	if !c.same {
		for _, f := range c.files {
			if err := c.gate.owner.WriteFile(filepath.Join(c.gate.folder, f.name), f.data, 0o600); err != nil {
				return fmt.Errorf("changing the broker's lists: %w", err)
			}
		}
	}
	broker, runs := running(c.gate.folder)
	if !runs || c.same && c.gate.reads(c.mark(broker)) {
		return nil
	}
	if err := c.gate.reload(ctx, broker); err != nil {
		return fmt.Errorf("changing the broker's lists: %w", err)
	}
	if err := c.gate.owner.WriteFile(filepath.Join(c.gate.folder, inForceFile), c.mark(broker), 0o600); err != nil {
		return fmt.Errorf("changing the broker's lists: %w", err)
	}
	return nil
}

// mark is what inForceFile says once the broker has read the lists.
func (c *Change) mark(broker instance) []byte {
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
// between two turns of its loop and answers nobody meanwhile: whoever connects
// after the signal may be served in the turn that was under way, whoever connects
// after that one was answered is served after the reading.
func (g *Gate) reload(ctx context.Context, broker instance) error {
	services, _, err := g.addresses(broker)
	if err != nil {
		return err
	}
	var asker client
	if g.Login != nil {
		if asker.user, asker.password, err = g.Login(ctx); err != nil {
			return err
		}
	}
	if err := broker.signal(ctx, g.folder); err != nil {
		return err
	}
	for range 2 {
		// It may not know us and say so, which is an answer.
		if err := connect(ctx, services, asker); err != nil && !errors.Is(err, ErrRefused) {
			return fmt.Errorf("waiting for the broker: %w", err)
		}
	}
	return nil
}

// addresses are the broker's listeners for services and for controllers.
func (g *Gate) addresses(broker instance) (services, devices string, err error) {
	text, err := os.ReadFile(filepath.Join(g.folder, confFile))
	if err != nil {
		return "", "", fmt.Errorf("looking for the broker's listeners: %w", err)
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 2 || fields[0] != "listener":
		case broker.host != "":
			all = append(all, net.JoinHostPort(broker.host, fields[1]))
		case len(fields) == 3:
			all = append(all, net.JoinHostPort(fields[2], fields[1]))
		}
	}
	if len(all) < 2 {
		return "", "", errors.New("looking for the broker's listeners: mosquitto.conf has none")
	}
	return all[0], all[1], nil
}

// haveLists tells whether a Gate has been at work in a broker's folder.
func haveLists(folder string) error {
	for _, name := range []string{caFile, deviceCRLFile, aclFile} {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			return fmt.Errorf("the lists of controllers are not there yet: %w", err)
		}
	}
	return nil
}
