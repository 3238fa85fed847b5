package compose

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// rule is one hardening item. It answers what is wrong with a service, "" for nothing.
type rule struct {
	name  string
	check func(*types.ServiceConfig) string
}

// oneShot tells whether a service runs to its end: it is nothing to be asked after.
func oneShot(s *types.ServiceConfig) bool {
	return slices.Contains([]string{"init", "operator", "provision", "demo", "vault-bootstrap"}, s.Name)
}

// own tells whether a service is of our image.
func own(s *types.ServiceConfig) bool {
	return slices.Contains([]string{"init", "operator", "provision", "bridge", "decoder", "writer", "keeper", "health", "alarm", "simulator", "vault-bootstrap"}, s.Name)
}

// rules hold for every service, whatever it is.
var rules = []rule{
	{"runs as a user of its own, by number", func(s *types.ServiceConfig) string {
		if !regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`).MatchString(s.User) {
			return "user " + s.User
		}
		return ""
	}},
	{"cannot write to its image", func(s *types.ServiceConfig) string { return unless(s.ReadOnly, "read_only is off") }},
	{"has no capabilities", func(s *types.ServiceConfig) string {
		return unless(slices.Equal(s.CapDrop, []string{"ALL"}) && len(s.CapAdd) == 0, fmt.Sprint("drops ", s.CapDrop, ", adds ", s.CapAdd))
	}},
	{"gains no privileges", func(s *types.ServiceConfig) string {
		return unless(slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) && !s.Privileged, fmt.Sprint(s.SecurityOpt, s.Privileged))
	}},
	{"shares nothing of the host's or of others", func(s *types.ServiceConfig) string {
		shared := s.Pid + s.Ipc + s.Uts + s.UserNSMode + s.Cgroup + s.CgroupParent
		return unless(shared == "" && len(s.Devices) == 0 && len(s.VolumesFrom) == 0 && !s.UseAPISocket && len(s.GroupAdd) == 0 &&
			(s.NetworkMode == "" || s.NetworkMode == "none"), shared+s.NetworkMode)
	}},
	{"has a temporary folder without programs", func(s *types.ServiceConfig) string {
		for _, t := range s.Tmpfs {
			_, options, _ := strings.Cut(t, ":")
			for _, want := range []string{"size=", "noexec", "nosuid", "nodev"} {
				if !strings.Contains(options, want) {
					return t + " without " + want
				}
			}
		}
		return unless(slices.ContainsFunc(s.Tmpfs, func(t string) bool { return strings.HasPrefix(t, "/tmp:") }), "no /tmp")
	}},
	{"has limits and reservations", limits},
	{"may open files enough, and dumps no core", func(s *types.ServiceConfig) string {
		files, core := s.Ulimits["nofile"], s.Ulimits["core"]
		return unless(files != nil && files.Soft == 65536 && files.Hard == 65536 && core != nil && core.Soft == 0 && core.Hard == 0, "ulimits")
	}},
	{"rotates its log", func(s *types.ServiceConfig) string {
		if s.Name == "operator" { // a backup goes to its standard output
			return unless(s.Logging != nil && s.Logging.Driver == "none", "its output is kept")
		}
		return unless(s.Logging != nil && s.Logging.Driver == "json-file" && s.Logging.Options["max-size"] != "" && s.Logging.Options["max-file"] != "", "logging")
	}},
	{"starts again when it ends", func(s *types.ServiceConfig) string {
		want := []string{"unless-stopped"}
		if oneShot(s) {
			want = []string{"no", "on-failure:5"}
		}
		return unless(slices.Contains(want, s.Restart), "restart "+s.Restart)
	}},
	{"has time to stop", func(s *types.ServiceConfig) string {
		// The stages drain for 10 seconds at most, the servers write what they hold.
		return unless(oneShot(s) || s.StopGracePeriod != nil && time.Duration(*s.StopGracePeriod) >= 10*time.Second, "stop_grace_period")
	}},
	{"is asked after", healthcheck},
	{"waits for what it needs", func(s *types.ServiceConfig) string {
		for name, d := range s.DependsOn {
			target := types.ServiceConfig{Name: name}
			want := types.ServiceConditionHealthy
			if oneShot(&target) {
				want = types.ServiceConditionCompletedSuccessfully
			}
			if d.Condition != want || !d.Required {
				return name + " " + d.Condition
			}
		}
		_, ok := s.DependsOn["init"]
		return unless(ok || s.Name == "init", "does not wait for init")
	}},
	{"is of an exact version", func(s *types.ServiceConfig) string {
		tagged, _, _ := strings.Cut(s.Image, "@")
		return unless(own(s) && strings.HasPrefix(s.Image, "f2mesh:") || regexp.MustCompile(`^[a-z0-9./-]+:v?[0-9]+\.[0-9]+(\.[0-9]+)?(-[a-z0-9.]+)?$`).MatchString(tagged), s.Image)
	}},
	{"is of an exact content", func(s *types.ServiceConfig) string {
		return unless(own(s) || pinned(s.Image), s.Image+" has no digest")
	}},
	{"has no secret in its environment or command", secretFree},
	{"mounts volumes as init left them, and folders to read", mounts},
}

// byTag are the images that have no digest yet: we know of no two sources that agree on
// one. tools/pin, where a registry can be reached, takes them off this list.
var byTag = []string{"nats:2.15.2-alpine", "postgres:17.7-bookworm", "timescale/timescaledb:2.24.0-pg17", "hashicorp/vault:1.21.0"}

// pinned tells whether an image is named by its content, or is one of byTag.
func pinned(image string) bool {
	return regexp.MustCompile(`@sha256:[0-9a-f]{64}$`).MatchString(image) || slices.Contains(byTag, image)
}

func unless(ok bool, problem string) string {
	if ok {
		return ""
	}
	return problem
}

func limits(s *types.ServiceConfig) string {
	if s.Deploy == nil || s.Deploy.Resources.Limits == nil || s.Deploy.Resources.Reservations == nil {
		return "no limits or no reservations"
	}
	most, least := s.Deploy.Resources.Limits, s.Deploy.Resources.Reservations
	switch {
	case most.NanoCPUs <= 0 || most.NanoCPUs > 2 || most.MemoryBytes <= 0 || most.MemoryBytes > 5<<30 || most.Pids <= 0:
		return "limits"
	case least.NanoCPUs <= 0 || least.NanoCPUs > most.NanoCPUs || least.MemoryBytes <= 0 || least.MemoryBytes > most.MemoryBytes:
		return "reservations"
	}
	return ""
}

// healthcheck wants a program that asks the server itself, without a shell.
func healthcheck(s *types.ServiceConfig) string {
	if oneShot(s) {
		return unless(s.HealthCheck != nil && s.HealthCheck.Disable, "it runs to its end: the image's health check is to be off")
	}
	h := s.HealthCheck
	if h == nil || h.Disable || len(h.Test) < 3 || h.Test[0] != "CMD" || h.Test[2] != "healthcheck" {
		return "no health check by f2mesh"
	}
	program := "/opt/f2mesh/f2mesh"
	if own(s) {
		program = "/usr/local/bin/f2mesh"
	}
	if h.Test[1] != program {
		return "its container has no " + h.Test[1]
	}
	return unless(h.Interval != nil && h.Timeout != nil && h.Retries != nil && h.StartPeriod != nil && *h.Retries > 0 &&
		*h.Timeout < *h.Interval, "no times")
}

// secretFree looks for names that hold passwords, and for values that are one.
func secretFree(s *types.ServiceConfig) string {
	for name, value := range s.Environment {
		if value == nil {
			return name + " is taken from whoever starts it"
		}
		secret := regexp.MustCompile(`(?i)(password|passwd|secret|token|credential|api_?key)`).MatchString(name)
		byFile := strings.HasSuffix(name, "_FILE") && strings.HasPrefix(*value, "/run/secrets/") || strings.HasPrefix(*value, "$__file{/run/secrets/")
		if secret && !byFile || holdsPassword(*value) {
			return "environment " + name
		}
	}
	for _, argument := range slices.Concat(s.Entrypoint, s.Command) {
		if holdsPassword(argument) || regexp.MustCompile(`(?i)password=|token=`).MatchString(argument) {
			return "argument " + argument
		}
	}
	return ""
}

var (
	passwordInURL = regexp.MustCompile(`://[^/@:\s]*:[^/@\s]+@`)
	base64Of24    = regexp.MustCompile(`[A-Za-z0-9+/]{32,}`)
	upper, digit  = regexp.MustCompile(`[A-Z]`), regexp.MustCompile(`[0-9]`)
)

// holdsPassword sees URLs with a password, and what setup makes: base64 of 24 bytes.
// A path of that length has no capitals.
func holdsPassword(text string) bool {
	candidate := base64Of24.FindString(text)
	return passwordInURL.MatchString(text) || upper.MatchString(candidate) && digit.MatchString(candidate)
}

func mounts(s *types.ServiceConfig) string {
	for _, v := range s.Volumes {
		switch {
		case v.Type == types.VolumeTypeVolume && v.Source == "":
			return "a volume without a name at " + v.Target
		case v.Type == types.VolumeTypeVolume && s.Name != "init" && (v.Volume == nil || !v.Volume.NoCopy):
			return v.Source + " is not nocopy: the image would give it another owner"
		case v.Type == types.VolumeTypeBind && (!v.ReadOnly && (s.Name != "operator" || v.Target != "/state/secrets") || v.Bind == nil || bool(v.Bind.CreateHostPath)):
			return v.Source + " of the host"
		case v.Type != types.VolumeTypeVolume && v.Type != types.VolumeTypeBind:
			return v.Type
		case strings.Contains(v.Source, "docker.sock"):
			return "the engine's socket"
		}
	}
	return ""
}

// broken are the rules that a service breaks.
func broken(s *types.ServiceConfig) (names []string) {
	for _, r := range rules {
		if problem := r.check(s); problem != "" {
			names = append(names, r.name)
		}
	}
	return names
}
