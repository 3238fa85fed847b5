package compose

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// patience is for a machine that does other things too.
const patience = 2 * time.Minute

// engine starts the services of a model as Compose does: in their order, each in
// its container, the next when those that it waits for are healthy or done.
type engine struct {
	t       *testing.T
	project *types.Project
	dir     string // volumes, secrets, roots
	running map[string]*service

	cut    bool // docker loses the end of what a container writes
	failUp bool // docker compose up fails
}

// service is one that was started.
type service struct {
	container
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	log  logBuffer

	endedAt time.Time // set before done is closed
}

// logBuffer collects what a service writes.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// newEngine needs root and namespaces. It leaves the machine's own networks alone:
// from here on the test's thread is in a network namespace of its own.
func newEngine(t *testing.T, project *types.Project) *engine {
	t.Helper()
	for _, program := range []string{"ip", "nsenter", "mosquitto", "psql", "pgbouncer"} {
		if _, err := exec.LookPath(program); err != nil && !exists("/usr/sbin/"+program) {
			missing(t, program+" is not installed (Debian: apt-get install iproute2 util-linux mosquitto postgresql pgbouncer)")
		}
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		missing(t, "namespaces of its own take root: "+err.Error())
	}
	e := &engine{t: t, project: project, dir: t.TempDir(), running: map[string]*service{}}
	for _, dir := range []string{"volumes", "roots"} {
		require.NoError(t, os.Mkdir(filepath.Join(e.dir, dir), 0o755))
	}
	out, err := exec.CommandContext(t.Context(), program(t), "setup", "--compose="+e.dir, "--uid=10001", "--gid=10001").CombinedOutput()
	require.NoError(t, err, string(out))
	e.makeVolumes()
	for name := range project.Networks {
		e.ip("link", "add", name, "type", "bridge")
		e.ip("link", "set", name, "up")
	}
	t.Cleanup(e.killAll)
	return e
}

// makeVolumes makes them as the engine does: init's image has these folders.
func (e *engine) makeVolumes() {
	e.t.Helper()
	for name := range e.project.Volumes {
		path := e.volume(name)
		require.NoError(e.t, os.Mkdir(path, 0o700))
		require.NoError(e.t, os.Chown(path, 10001, 10001))
	}
}

// missing skips on a laptop and fails in CI.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("F2MESH_REQUIRE_SERVERS") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (e *engine) volume(name string) string { return filepath.Join(e.dir, "volumes", name) }

func (e *engine) ip(args ...string) {
	e.t.Helper()
	out, err := exec.CommandContext(e.t.Context(), "ip", args...).CombinedOutput()
	require.NoError(e.t, err, "ip %v: %s", args, out)
}

// address is a service's on a network.
func (e *engine) address(name, network string) netip.Addr {
	if own := e.project.Services[name].Networks[network]; own != nil && own.Ipv4Address != "" {
		return netip.MustParseAddr(own.Ipv4Address)
	}
	subnet := netip.MustParsePrefix(e.project.Networks[network].Ipam.Config[0].Subnet)
	a := subnet.Addr().As4()
	a[3] = byte(10 + slices.Index(names(e.project), name))
	return netip.AddrFrom4(a)
}

// connect gives a container its networks.
func (e *engine) connect(name string) func(pid int) error {
	commands := e.networks(name)
	return func(pid int) error { return join(pid, commands) }
}

// networks are the commands that give a container its networks. PID stands for its process.
func (e *engine) networks(name string) [][]string {
	s := e.project.Services[name]
	commands := [][]string{{"nsenter", "-t", "PID", "-n", "ip", "link", "set", "lo", "up"}}
	for i, network := range slices.Sorted(maps.Keys(s.Networks)) {
		outer, inner := fmt.Sprintf("vPID-%d", i), "eth"+strconv.Itoa(i)
		commands = append(commands,
			[]string{"ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "address", hardwareAddress(e.address(name, network)), "netns", "PID"},
			[]string{"ip", "link", "set", outer, "master", network, "up"},
			[]string{"nsenter", "-t", "PID", "-n", "ip", "addr", "add", e.address(name, network).String() + "/24", "dev", inner},
			[]string{"nsenter", "-t", "PID", "-n", "ip", "link", "set", inner, "up"})
	}
	return commands
}

// hardwareAddress is the same each time that a container starts, as the engine's: others on the network remember it.
func hardwareAddress(of netip.Addr) string {
	a := of.As4()
	return net.HardwareAddr{0x02, 0x42, a[0], a[1], a[2], a[3]}.String()
}

func join(pid int, commands [][]string) error {
	for _, c := range commands {
		c = slices.Clone(c)
		for i := range c {
			c[i] = strings.ReplaceAll(c[i], "PID", strconv.Itoa(pid))
		}
		if out, err := exec.CommandContext(context.Background(), c[0], c[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", c, err, out)
		}
	}
	return nil
}

// hosts is the engine's name service: a container knows those that it shares a
// network with.
func (e *engine) hosts(name string) string {
	var file strings.Builder
	file.WriteString("127.0.0.1 localhost\n")
	for other, o := range e.project.Services {
		for network := range o.Networks {
			if _, shared := e.project.Services[name].Networks[network]; shared {
				fmt.Fprintf(&file, "%s %s\n", e.address(other, network), other)
				break
			}
		}
	}
	return file.String()
}

// container describes a service's.
func (e *engine) container(name string) container {
	s := e.project.Services[name]
	uid, gid, _ := strings.Cut(s.User, ":")
	c := container{
		Root: filepath.Join(e.dir, "roots", name), Hostname: name, Tmpfs: s.Tmpfs, Env: environment(&s),
		Args: slices.Concat(s.Entrypoint, s.Command), Links: map[string]string{},
		Files: map[string]string{
			"/etc/passwd": "iotuser:x:10001:10001::/nonexistent:/sbin/nologin\n", "/etc/group": "iotuser:x:10001:\n",
			"/etc/hosts": e.hosts(name), "/etc/nsswitch.conf": "hosts: files\n",
		},
	}
	c.UID, _ = strconv.Atoi(uid)
	c.GID, _ = strconv.Atoi(gid)
	_ = os.Mkdir(c.Root, 0o755)
	for _, device := range []string{"null", "zero", "urandom", "random"} {
		c.Mounts = append(c.Mounts, mountPoint{Source: "/dev/" + device, Target: "/dev/" + device})
	}
	image(e.t, &s, &c)
	volumes := slices.SortedFunc(slices.Values(s.Volumes), func(a, b types.ServiceVolumeConfig) int { return len(a.Target) - len(b.Target) })
	for _, v := range volumes {
		source := v.Source
		if v.Type == types.VolumeTypeVolume {
			source = e.volume(v.Source)
		} else if name := filepath.Base(source); name == "secrets" || name == ".env" { // of this mesh, not of the clone
			source = filepath.Join(e.dir, name)
		}
		c.Mounts = append(c.Mounts, mountPoint{Source: source, Target: v.Target, ReadOnly: v.ReadOnly})
	}
	for _, secret := range s.Secrets {
		c.Mounts = append(c.Mounts, mountPoint{
			Source: filepath.Join(e.dir, "secrets", secret.Source+".txt"), Target: "/run/secrets/" + secret.Source, ReadOnly: true,
		})
	}
	return c
}

// start starts a service and waits until it is healthy, or has run to its end.
func (e *engine) start(name string) { e.t.Helper(); e.startWith(name, "") }

// startWith gives it a standard input too.
func (e *engine) startWith(name, input string) {
	e.t.Helper()
	began := time.Now()
	s := e.launch(name, input)
	model := e.project.Services[name]
	if oneShot(&model) {
		e.await(name, func() bool { return s.ended() })
		require.True(e.t, s.cmd.ProcessState.Success(), "%s: %s\n%s", name, s.cmd.ProcessState, s.log.String())
	} else {
		e.await(name, func() bool {
			require.False(e.t, s.ended(), "%s has ended:\n%s", name, s.log.String())
			return e.healthy(name) == nil
		})
	}
	e.t.Logf("%-12s %s", name, time.Since(began).Round(time.Millisecond))
}

// launch starts a service without waiting.
func (e *engine) launch(name, input string) *service {
	e.t.Helper()
	s := &service{container: e.container(name), done: make(chan struct{})}
	s.In = strings.NewReader(input)
	cmd, err := s.start(&s.log, &s.log, e.connect(name))
	require.NoError(e.t, err, name)
	s.cmd = cmd
	go func() { _ = cmd.Wait(); s.endedAt = time.Now(); close(s.done) }()
	e.running[name] = s
	return s
}

func (s *service) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// healthy runs the service's own health check in its container.
func (e *engine) healthy(name string) error {
	s := e.running[name]
	if out, err := s.inside(s.cmd.Process.Pid, nil, e.project.Services[name].HealthCheck.Test[1:]...); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (e *engine) await(name string, done func() bool) {
	e.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().Before(deadline) {
			continue
		}
		cause := error(nil)
		if model := e.project.Services[name]; !oneShot(&model) {
			cause = e.healthy(name)
		}
		require.FailNow(e.t, name+" does not come up", "%v\n%s", cause, e.running[name].log.String())
	}
}

// stop is docker stop; it answers whether the service ended by itself, in order.
func (e *engine) stop(name string) (inOrder bool) {
	model, s := e.project.Services[name], e.running[name]
	signal := syscall.SIGTERM
	if model.StopSignal == "SIGINT" {
		signal = syscall.SIGINT
	}
	_ = s.cmd.Process.Signal(signal)
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(*model.StopGracePeriod))
	defer cancel()
	select {
	case <-s.done:
		return s.cmd.ProcessState.Success()
	case <-ctx.Done():
		return false
	}
}

func (e *engine) killAll() {
	for _, s := range e.running {
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// order is one in which each service comes behind those that it waits for.
func (e *engine) order() (sorted []string) {
	for len(sorted) < len(e.project.Services) {
		before := len(sorted)
		for _, name := range names(e.project) {
			ready := !slices.Contains(sorted, name)
			for on := range e.project.Services[name].DependsOn {
				ready = ready && slices.Contains(sorted, on)
			}
			if ready {
				sorted = append(sorted, name)
			}
		}
		require.Greater(e.t, len(sorted), before, "the services wait for each other")
	}
	return sorted
}
