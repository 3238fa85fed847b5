package soak

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// op is what happened to a message.
type op uint8

const (
	sent  op = iota + 1 // for the first time
	again               // the controller repeated it, because it saw no PUBACK
	acked               // the broker acknowledged it
)

// record is an entry of the journal.
type record struct {
	Controller uint16
	Kind       kind
	Op         op
	N          uint32 // the controller's own number of the message
	At         int64  // microseconds since 1970; for acked the time of the PUBACK
}

const recordSize = 16

// journal is what the simulated controllers know: what they sent and what the broker
// acknowledged. It is a file that is synced twice a second, and outside the disk that
// loses power. It is safe for concurrent use.
type journal struct {
	mu   sync.Mutex
	file *os.File
	out  *bufio.Writer
	err  error
	stop chan struct{}
	done sync.WaitGroup
}

func createJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600) //nolint:gosec // in a folder of our own
	if err != nil {
		return nil, fmt.Errorf("creating the journal: %w", err)
	}
	j := &journal{file: file, out: bufio.NewWriterSize(file, 1<<16), stop: make(chan struct{})}
	j.done.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-j.stop:
				return
			case <-tick.C:
				j.sync()
			}
		}
	})
	return j, nil
}

// add writes one record. Its error is that of close.
func (j *journal) add(r record) {
	var b [recordSize]byte
	binary.LittleEndian.PutUint16(b[0:], r.Controller)
	b[2], b[3] = byte(r.Kind), byte(r.Op)
	binary.LittleEndian.PutUint32(b[4:], r.N)
	binary.LittleEndian.PutUint64(b[8:], uint64(r.At)) //nolint:gosec // read back as it was
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.out.Write(b[:]); err != nil {
		j.err = errors.Join(j.err, err)
	}
}

func (j *journal) sync() {
	j.mu.Lock()
	err := j.out.Flush()
	j.mu.Unlock()
	if err = errors.Join(err, j.file.Sync()); err != nil {
		j.mu.Lock()
		j.err = errors.Join(j.err, err)
		j.mu.Unlock()
	}
}

// close brings everything to disk. An error means that the journal is not complete.
func (j *journal) close() error {
	close(j.stop)
	j.done.Wait()
	j.sync()
	if err := errors.Join(j.err, j.file.Close()); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}

// readJournal calls each for every record.
func readJournal(path string, each func(record)) error {
	file, err := os.Open(path) //nolint:gosec // our own
	if err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	defer func() { _ = file.Close() }()
	in := bufio.NewReaderSize(file, 1<<16)
	var b [recordSize]byte
	for {
		if _, err := io.ReadFull(in, b[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading the journal: %w", err)
		}
		each(record{
			Controller: binary.LittleEndian.Uint16(b[0:]), Kind: kind(b[2]), Op: op(b[3]),
			N: binary.LittleEndian.Uint32(b[4:]), At: int64(binary.LittleEndian.Uint64(b[8:])), //nolint:gosec // written as it was
		})
	}
}
