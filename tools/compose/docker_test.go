package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// dockerVariable holds the socket where the engine hears the docker of enterDocker.
const dockerVariable = "F2MESH_COMPOSE_DOCKER"

// answer is the engine's to a command of docker compose.
type answer struct {
	Out, Err string
	Run      *container // to be run with the streams of who asked
	Networks [][]string // of that container, see join
	Cut      bool       // lose the end of its output
}

// enterDocker is the docker that f2mesh finds: it has the engine do what it is told.
// A container of its own it runs itself, as a child with its own streams.
func enterDocker() {
	runtime.LockOSThread() // the child dies with the thread
	code, err := askEngine()
	if err != nil {
		fmt.Fprintln(os.Stderr, "docker:", err)
		code = 1
	}
	os.Exit(code)
}

func askEngine() (int, error) {
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "unix", os.Getenv(dockerVariable))
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	if err := json.NewEncoder(conn).Encode(os.Args[1:]); err != nil {
		return 0, err
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return 0, err
	}
	fmt.Print(a.Out)
	if a.Err != "" {
		return 0, fmt.Errorf("%s", a.Err)
	}
	if a.Run == nil {
		return 0, nil
	}
	a.Run.In = os.Stdin
	var out, problems io.Writer = os.Stdout, os.Stderr
	if a.Cut {
		out, problems = &cutter{to: os.Stdout, left: 4096}, &cutter{to: os.Stderr, left: 64}
	}
	cmd, err := a.Run.start(out, problems, func(pid int) error { return join(pid, a.Networks) })
	if err != nil {
		return 0, err
	}
	_ = cmd.Wait() // its state says it
	return cmd.ProcessState.ExitCode(), nil
}

// cutter is a connection to the engine that breaks after so many bytes, unnoticed.
type cutter struct {
	to   io.Writer
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	if _, err := c.to.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// f2mesh runs the program on this machine, with a docker whose engine is this one. It
// answers what the program said, and the commands that docker was given.
func (e *engine) f2mesh(args ...string) (out string, asked []string, err error) {
	e.t.Helper()
	dir := e.t.TempDir()
	self, err := os.Executable()
	require.NoError(e.t, err)
	require.NoError(e.t, os.Symlink(self, filepath.Join(dir, "docker")))
	listener, err := (&net.ListenConfig{}).Listen(e.t.Context(), "unix", filepath.Join(dir, "socket"))
	require.NoError(e.t, err)
	defer func() { _ = listener.Close() }()
	conns, done := make(chan net.Conn), make(chan error)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns <- conn
		}
	}()
	cmd := exec.CommandContext(e.t.Context(), program(e.t), args...)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), dockerVariable+"="+filepath.Join(dir, "socket"))
	require.NoError(e.t, cmd.Start())
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case conn := <-conns: // here: this thread is in the engine's networks
			asked = append(asked, e.serve(conn))
		case err := <-done:
			return text.String(), asked, err
		}
	}
}

// serve does one command.
func (e *engine) serve(conn net.Conn) string {
	e.t.Helper()
	defer func() { _ = conn.Close() }()
	var args []string
	require.NoError(e.t, json.NewDecoder(conn).Decode(&args))
	if args[0] != "compose" {
		require.NoError(e.t, json.NewEncoder(conn).Encode(e.docker(args)))
		return strings.Join(args, " ")
	}
	require.Equal(e.t, []string{"compose", "--profile", "*"}, args[:3])
	require.NoError(e.t, json.NewEncoder(conn).Encode(e.compose(args[3:])))
	return strings.Join(args[3:], " ")
}

func (e *engine) compose(args []string) (a answer) {
	switch line := strings.Join(args, " "); {
	case line == "ps --services --all":
		for name := range e.running {
			a.Out += name + "\n"
		}
	case strings.HasPrefix(line, "ps --quiet "):
		if slices.Contains(e.up(), args[2]) {
			a.Out = args[2] + "\n" // a container's id is its service's name here
		}
	case line == "build --quiet init":
	case strings.HasPrefix(line, "up --no-deps --detach --wait ") && e.failUp:
		a.Err = "the disk is full"
	case strings.HasPrefix(line, "up --no-deps --detach --wait "):
		if !hasTimescale(e.t) { // init has just been there
			withoutTimescale(e.t, e.volume("timescaledb-config"))
		}
		for _, name := range e.order() {
			if slices.Contains(args[4:], name) {
				e.start(name)
			}
		}
	case line == "down":
		e.stopAll()
		e.running = map[string]*service{}
	case strings.HasPrefix(line, "run --rm --no-deps --no-TTY "):
		c := e.command(args[4], args[5:]...)
		a.Run, a.Networks, a.Cut = &c, e.networks(args[4]), e.cut
	default:
		a.Err = "unknown: " + line
	}
	return a
}

// command is a service's container with another command.
func (e *engine) command(name string, args ...string) container {
	c := e.container(name)
	entrypoint := e.project.Services[name].Entrypoint
	if len(entrypoint) == 0 { // that of our image
		entrypoint = []string{"/usr/local/bin/f2mesh"}
	}
	c.Args = slices.Concat(entrypoint, args)
	return c
}

// operator runs a command as `./task compose:run` does.
func (e *engine) operator(args ...string) (string, error) {
	c := e.command("operator", args...)
	var out logBuffer
	cmd, err := c.start(&out, &out, e.connect("operator"))
	require.NoError(e.t, err)
	err = cmd.Wait()
	return out.String(), err
}

// up are the services that run.
func (e *engine) up() (names []string) {
	for name, s := range e.running {
		if !s.ended() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// stopAll is docker compose stop: each before those that it waits for.
func (e *engine) stopAll() {
	e.t.Helper()
	order := e.order()
	slices.Reverse(order)
	for _, name := range order {
		s := e.running[name]
		if s != nil && !s.ended() {
			assert.True(e.t, e.stop(name), "%s does not stop in order: %s\n%s", name, s.cmd.ProcessState, s.log.String())
		}
	}
}
