package compose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// containerVariable holds what enterContainer is to enter.
const containerVariable = "F2MESH_COMPOSE_CONTAINER"

// container is one service as the kernel sees it: what an engine would ask of it,
// without the engine, its image and its limits. Programs that are other people's
// come from this machine's /usr.
type container struct {
	Root     string // an empty folder
	Mounts   []mountPoint
	Tmpfs    []string // as in compose.yaml
	Files    map[string]string
	Hostname string
	UID, GID int
	Args     []string
	Env      []string
	Links    map[string]string

	In io.Reader `json:"-"` // standard input, if not empty
}

type mountPoint struct {
	Source, Target string
	ReadOnly       bool
}

// enterContainer is the first process of a container: it waits until it has its
// networks, makes its file system, gives up all rights, and becomes the service.
func enterContainer() {
	runtime.LockOSThread() // what a thread has given up, the program that replaces it has not
	var c container
	err := json.Unmarshal([]byte(os.Getenv(containerVariable)), &c)
	if err == nil {
		networks := os.NewFile(3, "networks")
		_, err = io.ReadAll(networks)
		err = errors.Join(err, networks.Close())
	}
	if err == nil {
		err = c.become()
	}
	fmt.Fprintln(os.Stderr, "container:", err)
	os.Exit(125)
}

func (c *container) become() error {
	for _, step := range []func() error{c.mountAll, c.dropRights} {
		if err := step(); err != nil {
			return err
		}
	}
	path, err := c.lookPath(c.Args[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", path, unix.Exec(path, c.Args, c.Env))
}

// lookPath is execvp's, with the container's own PATH.
func (c *container) lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, e := range c.Env {
		path, ok := strings.CutPrefix(e, "PATH=")
		for _, dir := range filepath.SplitList(path) {
			if _, err := os.Stat(filepath.Join(dir, name)); ok && err == nil {
				return filepath.Join(dir, name), nil
			}
		}
	}
	return "", fmt.Errorf("%s is not on the container's PATH", name)
}

func (c *container) mountAll() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", c.Root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mounting the root: %w", err)
	}
	for path, text := range c.Files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(c.in(path)), 0o755), os.WriteFile(c.in(path), []byte(text), 0o644)); err != nil {
			return err
		}
	}
	for path, target := range c.Links {
		if err := os.Symlink(target, c.in(path)); err != nil {
			return err
		}
	}
	for _, m := range c.Mounts {
		if err := c.bind(m); err != nil {
			return fmt.Errorf("mounting %s: %w", m.Target, err)
		}
	}
	for _, t := range append(c.Tmpfs, "/dev/shm:size=64m,mode=1777") {
		if err := c.tmpfs(t); err != nil {
			return fmt.Errorf("mounting %s: %w", t, err)
		}
	}
	if err := errors.Join(os.MkdirAll(c.in("/proc"), 0o755), unix.Mount("proc", c.in("/proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := unix.Mount("", c.Root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil { // read_only
		return fmt.Errorf("making the root read-only: %w", err)
	}
	return errors.Join(unix.Sethostname([]byte(c.Hostname)), unix.Chroot(c.Root), os.Chdir("/"))
}

func (c *container) in(path string) string { return filepath.Join(c.Root, path) }

func (c *container) bind(m mountPoint) error {
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	target := c.in(m.Target)
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		err = touch(target)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(m.Source, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if !m.ReadOnly {
		return nil
	}
	return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID, "")
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// tmpfs takes what compose.yaml says: /tmp:size=16m,mode=1777,noexec,nosuid,nodev.
func (c *container) tmpfs(text string) error {
	path, options, _ := strings.Cut(text, ":")
	var flags uintptr
	var data []string
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "noexec":
			flags |= unix.MS_NOEXEC
		case "nosuid":
			flags |= unix.MS_NOSUID
		case "nodev":
			flags |= unix.MS_NODEV
		default:
			data = append(data, option)
		}
	}
	if err := os.MkdirAll(c.in(path), 0o755); err != nil {
		return err
	}
	return unix.Mount("tmpfs", c.in(path), "tmpfs", flags, strings.Join(data, ","))
}

// dropRights is cap_drop ALL, no-new-privileges and user, in the order in which one
// still may.
func (c *container) dropRights() error {
	for capability := range uintptr(unix.CAP_LAST_CAP + 1) {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("dropping capability %d: %w", capability, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("refusing new privileges: %w", err)
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("leaving groups: %w", err)
	}
	if err := syscall.Setgid(c.GID); err != nil {
		return fmt.Errorf("becoming group %d: %w", c.GID, err)
	}
	if err := syscall.Setuid(c.UID); err != nil {
		return fmt.Errorf("becoming user %d: %w", c.UID, err)
	}
	return nil
}

// start starts the container. Its networks come from connect, before anything of
// its own runs. The calling thread's network namespace is where networks are.
func (c *container) start(out, problems io.Writer, connect func(pid int) error) (*exec.Cmd, error) {
	spec, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	wait, goOn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = errors.Join(wait.Close(), goOn.Close()) }()
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe")
	cmd.Env = []string{containerVariable + "=" + string(spec)}
	cmd.Stdin = c.In
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, problems, []*os.File{wait}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := connect(cmd.Process.Pid); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return cmd, nil
}

// inside runs a command in a container that runs, as docker exec does.
func (c *container) inside(pid int, env []string, args ...string) ([]byte, error) {
	number := strconv.Itoa(pid)
	path, err := c.lookPathAt(number, args[0])
	if err != nil {
		return nil, err
	}
	all := []string{
		"--target", number, "--mount", "--net", "--pid", "--ipc", "--uts", "--root", "--wd",
		"--setuid", strconv.Itoa(c.UID), "--setgid", strconv.Itoa(c.GID), "--", path,
	}
	cmd := exec.CommandContext(context.Background(), "nsenter", append(all, args[1:]...)...)
	cmd.Env = append(append([]string{}, c.Env...), env...)
	return cmd.CombinedOutput()
}

func (c *container) lookPathAt(pid, name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range []string{"/usr/local/bin", "/usr/sbin", "/usr/bin"} {
		if _, err := os.Stat(filepath.Join("/proc", pid, "root", dir, name)); err == nil {
			return filepath.Join(dir, name), nil
		}
	}
	return "", fmt.Errorf("the container has no %s", name)
}
