package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// disk is an ext4 file system of its own, in a file, that can lose power and be full.
type disk struct {
	image, dir string
}

// diskSize is sparse.
const diskSize = 16 << 30

// createDisk makes and mounts the disk in the folder. It needs the rights of root.
func createDisk(ctx context.Context, folder string) (*disk, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("mounting a disk needs root")
	}
	d := &disk{image: filepath.Join(folder, "disk.img"), dir: filepath.Join(folder, "disk")}
	if err := os.MkdirAll(d.dir, 0o755); err != nil { //nolint:gosec // the servers' accounts must get through
		return nil, fmt.Errorf("creating the disk: %w", err)
	}
	file, err := os.Create(d.image)
	if err != nil {
		return nil, fmt.Errorf("creating the disk: %w", err)
	}
	if err := errors.Join(file.Truncate(diskSize), file.Close()); err != nil {
		return nil, fmt.Errorf("creating the disk: %w", err)
	}
	if err := command(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", d.image); err != nil {
		return nil, err
	}
	if err := d.mount(ctx); err != nil {
		return nil, err
	}
	return d, os.Chmod(d.dir, 0o755) //nolint:gosec // as above
}

func (d *disk) mount(ctx context.Context) error {
	return command(ctx, "mount", "-o", "loop,noatime", d.image, d.dir)
}

// cutPower stops the file system as a power cut does: what was not synced is gone, and
// nothing can be written any more, as XFS_IOC_GOINGDOWN has it, which ext4 took over.
func (d *disk) cutPower() error {
	const (
		shutdown   = 0x8004587d // EXT4_IOC_SHUTDOWN
		noLogFlush = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH: not even the journal is written
	)
	dir, err := os.Open(d.dir)
	if err != nil {
		return fmt.Errorf("cutting the power: %w", err)
	}
	defer func() { _ = dir.Close() }()
	flags := uint32(noLogFlush)
	if _, _, code := syscall.Syscall(syscall.SYS_IOCTL, dir.Fd(), shutdown, uintptr(unsafe.Pointer(&flags))); code != 0 { //nolint:gosec // ioctl's way
		return fmt.Errorf("cutting the power: %w", code)
	}
	return nil
}

// restore mounts the disk again, after all that used it has died.
func (d *disk) restore(ctx context.Context) error {
	if err := d.unmount(ctx); err != nil {
		return err
	}
	if err := d.mount(ctx); err != nil {
		return err
	}
	// A process with a mount namespace of its own, such as a container that was started
	// meanwhile, keeps the file system as it was.
	if err := os.WriteFile(filepath.Join(d.dir, "powered"), nil, 0o600); err != nil {
		return fmt.Errorf("the disk is still without power: a process with a mount namespace of its own has it, too: %w", err)
	}
	return nil
}

func (d *disk) unmount(ctx context.Context) (err error) {
	for range 50 {
		if err = command(ctx, "umount", d.dir); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// fill leaves no room on the disk. It returns what frees it.
func (d *disk) fill() (free func() error, err error) {
	path := filepath.Join(d.dir, "filler")
	file, err := os.Create(path) //nolint:gosec // in a folder of our own
	if err != nil {
		return nil, fmt.Errorf("filling the disk: %w", err)
	}
	defer func() { _ = file.Close() }()
	length := int64(0)
	for step := int64(1 << 30); step >= 4096; {
		err := syscall.Fallocate(int(file.Fd()), 0, length, step)
		switch {
		case errors.Is(err, syscall.ENOSPC):
			step /= 2
		case err != nil:
			return nil, fmt.Errorf("filling the disk: %w", err)
		default:
			length += step
		}
	}
	return func() error { return os.Remove(path) }, nil
}

// close unmounts and deletes the disk.
func (d *disk) close(ctx context.Context) error {
	return errors.Join(d.unmount(ctx), os.Remove(d.image))
}

// command runs a program of the system.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput() //nolint:gosec // fixed programs
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
