package volume

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// ErrIncomplete says that a stream is not one that Save ended.
var ErrIncomplete = errors.New("the stream of the volumes is not whole")

// Check has save write to w, and wraps ErrIncomplete if that was not all of what a
// Save writes, and nothing else. Who passes the stream on need not notice that.
func Check(w io.Writer, save func(io.Writer) error) error {
	read, write := io.Pipe()
	checked := make(chan error, 1)
	go func() {
		err := whole(read)
		_ = read.CloseWithError(err)
		checked <- err
	}()
	err := save(io.MultiWriter(w, write))
	_ = write.CloseWithError(err)
	return errors.Join(err, <-checked)
}

// whole reads to the stream's end, where its length and sum are. Save writes them
// only when all else is written.
func whole(r io.Reader) error {
	compressed, err := gzip.NewReader(r)
	if err == nil {
		_, err = io.Copy(io.Discard, compressed) //nolint:gosec // nothing is kept
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return nil
}
