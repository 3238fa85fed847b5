package credential

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"
)

// sector is what a disk writes in one piece. A secret with its user fits in one.
const sector = 512

// overwrite replaces the content of a file and keeps the file itself: a container that has it mounted sees the new
// content, which it does not if another file takes the name.
//
// A reader may see the beginning of the new content and the end of the old one. It then has the version of a moment
// before the last one, because the change time that the file has in the end is set only when the content is complete,
// and differs from every earlier one. So the reader reads again, and nobody takes its value for the new one. After a
// power cut one of the two contents is there: both are as long as the file, and one sector.
func overwrite(path string, data []byte) (err error) {
	if len(data) > sector {
		return fmt.Errorf("it has %d bytes, and must not have more than %d", len(data), sector)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // the operator names the folder
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	before, err := file.Stat()
	if err != nil {
		return err
	}
	if before.Size() < sector { // a reader takes trailing newlines away
		if _, err := file.WriteAt(newlines(sector-int(before.Size())), before.Size()); err != nil {
			return err
		}
		if err := file.Sync(); err != nil {
			return err
		}
	}
	if _, err := file.WriteAt(append(bytes.Clone(data), newlines(sector-len(data))...), 0); err != nil {
		return err
	}
	if err := file.Truncate(sector); err != nil {
		return err
	}
	after, err := file.Stat()
	if err != nil {
		return err
	}
	if err := os.Chtimes(path, time.Time{}, changed(before.ModTime(), after.ModTime())); err != nil {
		return err
	}
	return file.Sync()
}

// changed is a change time that neither the file nor a reader had before: secret.Files has versions of a millisecond.
func changed(before, after time.Time) time.Time {
	if before.After(after) { // the clock was set back
		after = before
	}
	return after.Truncate(time.Millisecond).Add(time.Millisecond)
}

func newlines(n int) []byte { return bytes.Repeat([]byte("\n"), n) }
