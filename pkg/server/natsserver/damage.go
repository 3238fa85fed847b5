package natsserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/secret/account"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats-server/v2/server"
)

// What nats-server does to a stream that it cannot read is worse than the damage: after a
// crash it deletes all of its messages because of one block that cannot be decompressed,
// and without a readable description it goes on without the stream, which setup would
// then create anew over its files. So a start fails instead.

// runbook says what to do then.
const runbook = "docs/runbooks/StreamDamaged.md"

// stoppedFile is in the server's folder while the server is stopped in order: then it does
// not read the blocks when it starts.
const stoppedFile = "stopped"

// checkBlocks looks for blocks that the server could not read. It is for a server that is
// not running; after a stop in order it does nothing.
func checkBlocks(dir string) error {
	if err := os.Remove(filepath.Join(dir, stoppedFile)); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, account.SyncPath(dir))
	}
	blocks, _ := filepath.Glob(filepath.Join(dir, "streams", "jetstream", "*", "streams", "*", "msgs", "*.blk"))
	var damaged []string
	for _, block := range blocks {
		if err := checkBlock(block); err != nil {
			damaged = append(damaged, fmt.Sprintf("%s (%v)", block, err))
		}
	}
	if len(damaged) == 0 {
		return nil
	}
	return fmt.Errorf("damaged files: %s. The server would delete their streams. Nothing was changed. What to do: %s", strings.Join(damaged, ", "), runbook)
}

// checkBlock decompresses a block that is compressed: it begins with "cmp", the algorithm
// (1: S2) and its size, and ends with the checksum of its last record.
func checkBlock(name string) error {
	const magic, checksum = "cmp\x01", 8
	data, err := os.ReadFile(name) //nolint:gosec // the server's own folder
	if err != nil || !bytes.HasPrefix(data, []byte(magic)) {
		return err
	}
	_, n := binary.Uvarint(data[len(magic):])
	if n <= 0 || len(data) < len(magic)+n+checksum {
		return io.ErrUnexpectedEOF
	}
	_, err = io.Copy(io.Discard, s2.NewReader(bytes.NewReader(data[len(magic)+n:len(data)-checksum])))
	return err
}

// markStopped notes a stop in order.
func markStopped(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, stoppedFile), nil, 0o600); err != nil {
		return fmt.Errorf("noting the stop: %w", err)
	}
	return nil
}

// allThere returns an error if the server has left out a stream that is on disk.
func (s *Server) allThere(store string, log *logger) error {
	var problems []string
	for _, e := range s.server.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if e.Type == server.HealthzErrorStream {
			dir := filepath.Join(store, "jetstream", e.Account, "streams", e.Stream)
			problems = append(problems, fmt.Sprintf("stream %s in %s cannot be read: %s", e.Stream, dir, log.warningAbout(e.Stream)))
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%s. Nothing was changed. What to do: %s", strings.Join(problems, "; "), runbook)
}
