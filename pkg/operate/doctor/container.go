package doctor

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// container is what the Docker API reports of one.
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

// differences tells how the container differs from compose.yaml.
func (c container) differences() map[string]bool {
	host, check := c.HostConfig, c.Config.Healthcheck
	user, _, _ := strings.Cut(c.Config.User, ":")
	return map[string]bool{
		"runs as root":             slices.Contains([]string{"", "0", "root"}, user),
		"is privileged":            host.Privileged,
		"has no memory limit":      host.Memory == 0,
		"has no CPU limit":         host.NanoCpus == 0,
		"can write its image":      !host.ReadonlyRootfs,
		"keeps capabilities":       !slices.Contains(host.CapDrop, "ALL"),
		"may gain new privileges":  !slices.Contains(host.SecurityOpt, "no-new-privileges:true") && !slices.Contains(host.SecurityOpt, "no-new-privileges"),
		"has no health check":      check == nil || len(check.Test) == 0 || check.Test[0] == "NONE",
		"uses the host's network":  host.NetworkMode == "host",
		"uses the default network": host.NetworkMode == "bridge" || host.NetworkMode == "default",
		"publishes 5432/tcp":       len(c.NetworkSettings.Ports["5432/tcp"]) > 0,
		"publishes 8222/tcp":       len(c.NetworkSettings.Ports["8222/tcp"]) > 0,
	}
}

func containerHardening(ctx context.Context, t *Target) Finding {
	all := t.runningContainers(ctx)
	var problems []string
	for _, c := range all {
		for difference, found := range c.differences() {
			if found {
				problems = append(problems, c.Name+" "+difference)
			}
		}
	}
	slices.Sort(problems)
	return verdict(problems, "%d containers", len(all))
}

// runningContainers are the mesh's.
func (t *Target) runningContainers(ctx context.Context) (all []container) {
	need(exists(t.Docker), "there is no Docker API here (%s)", t.Docker)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", t.Docker)
	}
	docker := web{url: "http://docker", client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}}
	get := func(path string, into any) {
		text, err := docker.get(ctx, path)
		if err == nil {
			err = json.Unmarshal([]byte(text), into)
		}
		need(err == nil, "the Docker API cannot be used: %v", err)
	}
	var running []struct{ ID string }
	get("/containers/json?"+url.Values{"filters": {`{"label":["com.docker.compose.project=f2mesh"]}`}}.Encode(), &running)
	need(len(running) > 0, "no container of the Compose project f2mesh is running")
	for _, r := range running {
		var c container
		get("/containers/"+url.PathEscape(r.ID)+"/json", &c)
		all = append(all, c)
	}
	return all
}
