package doctor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func processChecks() []Check {
	return []Check{
		{
			"process-users", "Container Security: Non-Root Users", "the users that Mosquitto, PostgreSQL and f2mesh run as",
			"run `f2mesh up` as an ordinary user, or in its image, which has one", processUsers,
		},
		{
			"container-hardening", "Container Security", "users, limits, capabilities, file systems, health checks and published ports of the containers",
			"start the containers from compose.yaml as shipped", containerHardening,
		},
	}
}

func processUsers(_ context.Context, m *Mesh) Finding {
	var problems []string
	for name, file := range map[string]string{
		"Mosquitto":  m.path("mosquitto", "data", "mosquitto.pid"),
		"PostgreSQL": m.path("postgres", "data", "postmaster.pid"),
	} {
		pid, err := firstNumber(file)
		if err != nil {
			return notChecked("%s does not run on this machine's state directory: %v", name, err)
		}
		uid, err := owner(pid)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", name, err))
		} else if uid == 0 {
			problems = append(problems, name+" runs as root")
		}
	}
	if uid, err := owner(m.PID); err != nil {
		problems = append(problems, fmt.Sprintf("f2mesh: %v", err))
	} else if uid == 0 && len(problems) == 0 {
		return warning("Mosquitto and PostgreSQL run as accounts of their own, but f2mesh itself runs as root")
	}
	return verdict(problems, "none runs as root")
}

func firstNumber(file string) (int, error) {
	f, err := os.Open(file) //nolint:gosec // a pid file of the mesh
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	line, _ := bufio.NewReader(f).ReadString('\n')
	return strconv.Atoi(strings.TrimSpace(line))
}

// owner is the user whose a process is.
func owner(pid int) (uint32, error) {
	info, err := os.Stat("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("process %d has no user", pid)
	}
	return stat.Uid, nil
}

// container is what the Docker API tells of one.
type container struct {
	Name   string
	Config struct {
		User        string
		Healthcheck *struct{ Test []string }
	}
	HostConfig struct {
		Memory, NanoCpus     int64
		ReadonlyRootfs       bool
		Privileged           bool
		CapDrop, SecurityOpt []string
		NetworkMode          string
	}
	NetworkSettings struct {
		Ports map[string][]struct{ HostPort string }
	}
	Mounts []struct{ Name string }
}

// unpublished are the ports that are never reachable from outside.
func unpublished() []string { return []string{"5432/tcp", "8222/tcp"} }

// problems lists what is not as in compose.yaml.
func (c container) problems() (all []string) {
	user, _, _ := strings.Cut(c.Config.User, ":")
	for problem, there := range map[string]bool{
		"runs as root":                            user == "" || user == "0" || user == "root",
		"is privileged":                           c.HostConfig.Privileged,
		"has no memory limit":                     c.HostConfig.Memory == 0,
		"has no CPU limit":                        c.HostConfig.NanoCpus == 0,
		"can write its image":                     !c.HostConfig.ReadonlyRootfs,
		"keeps capabilities":                      !slices.Contains(c.HostConfig.CapDrop, "ALL"),
		"may gain new privileges":                 !slices.Contains(c.HostConfig.SecurityOpt, "no-new-privileges:true") && !slices.Contains(c.HostConfig.SecurityOpt, "no-new-privileges"),
		"has no health check":                     c.Config.Healthcheck == nil || len(c.Config.Healthcheck.Test) == 0 || c.Config.Healthcheck.Test[0] == "NONE",
		"is in the host's or the default network": c.HostConfig.NetworkMode == "host" || c.HostConfig.NetworkMode == "bridge" || c.HostConfig.NetworkMode == "default",
	} {
		if there {
			all = append(all, c.Name+" "+problem)
		}
	}
	for _, port := range unpublished() {
		if len(c.NetworkSettings.Ports[port]) > 0 {
			all = append(all, c.Name+" publishes "+port)
		}
	}
	slices.Sort(all)
	return all
}

func containerHardening(ctx context.Context, m *Mesh) Finding {
	all, reason := m.runningContainers(ctx)
	if reason != "" {
		return notChecked("%s", reason)
	}
	var problems []string
	for _, c := range all {
		problems = append(problems, c.problems()...)
	}
	return verdict(problems, "%d containers", len(all))
}

// runningContainers are the mesh's, or the reason why they cannot be looked at.
func (m *Mesh) runningContainers(ctx context.Context) (all []container, reason string) {
	if _, err := os.Stat(m.Docker); err != nil {
		return nil, fmt.Sprintf("no Docker API is here (%s)", m.Docker)
	}
	docker := dockerClient{&http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", m.Docker)
		},
	}}}
	var running []struct{ ID string }
	filter := url.Values{"filters": {`{"label":["com.docker.compose.project=f2mesh"]}`}}
	if err := docker.get(ctx, "/containers/json?"+filter.Encode(), &running); err != nil {
		return nil, fmt.Sprintf("the Docker API does not answer: %v", err)
	}
	if len(running) == 0 {
		return nil, "no container of the Compose project f2mesh runs"
	}
	for _, r := range running {
		var c container
		if err := docker.get(ctx, "/containers/"+url.PathEscape(r.ID)+"/json", &c); err != nil {
			return nil, fmt.Sprintf("the Docker API does not answer: %v", err)
		}
		all = append(all, c)
	}
	return all, ""
}

type dockerClient struct{ *http.Client }

func (d dockerClient) get(ctx context.Context, path string, into any) error {
	return getJSON(ctx, d.Client, "http://docker"+path, into)
}

func getJSON(ctx context.Context, client *http.Client, address string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %s", response.Status)
	}
	return json.NewDecoder(response.Body).Decode(into)
}
