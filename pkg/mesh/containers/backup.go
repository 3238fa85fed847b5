package containers

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"github.com/f2mesh/f2mesh/pkg/operate/backup"
)

// Backup has the service operator write a backup of the mesh that runs, and puts it into a file.
type Backup struct {
	Project    Project
	To         string
	Recipients []string
	Passphrase string // what a passphrase file contains, in place of recipients
	DryRun     bool
}

// Run writes the file. It has its name once it is complete.
func (b *Backup) Run(ctx context.Context) error {
	if err := b.Project.build(ctx); err != nil {
		return err
	}
	args := []string{"backup", "--to=-"}
	for _, r := range b.Recipients {
		args = append(args, "--recipient="+r)
	}
	if b.Passphrase != "" {
		args = append(args, "--passphrase-file=-")
	}
	send := func(w io.Writer) error { _, err := io.WriteString(w, b.Passphrase); return err }
	if b.DryRun {
		return b.Project.within(ctx, "operator", append(args, "--dry-run"), send, os.Stdout, os.Stderr)
	}
	file, err := backup.NewFile(b.To)
	if err != nil {
		return err
	}
	defer file.Discard()
	sum := sha256.New()
	written := &summary{}
	if err := written.follow(func(problems io.Writer) error {
		return b.Project.within(ctx, "operator", args, send, io.MultiWriter(file, sum), problems)
	}); err != nil {
		return fmt.Errorf("backing up: %w", err)
	}
	if written.sum == "" || written.sum != hex.EncodeToString(sum.Sum(nil)) {
		return errors.New("backing up: the archive is not complete: it did not arrive as the container wrote it; try again")
	}
	return file.Complete()
}

// Summary is the line with which a backup that goes to standard output ends on standard error.
func Summary(sum []byte) string { return fmt.Sprintf("wrote an archive with SHA-256 %x", sum) }

var summaryLine = regexp.MustCompile(`^wrote an archive with SHA-256 ([0-9a-f]{64})$`) //nolint:gochecknoglobals // compiled once

// summary finds that line.
type summary struct{ sum string }

// follow runs do, and passes on what it writes to its standard error.
func (s *summary) follow(do func(problems io.Writer) error) error {
	read, write := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(read)
		for lines.Scan() {
			if found := summaryLine.FindStringSubmatch(lines.Text()); found != nil {
				s.sum = found[1]
				continue
			}
			fmt.Fprintln(os.Stderr, lines.Text())
		}
		_, _ = io.Copy(io.Discard, read) // behind a line that is too long
	}()
	err := do(write)
	_ = write.Close()
	<-done
	return err
}
