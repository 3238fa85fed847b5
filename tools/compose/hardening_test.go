package compose

import (
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// services are those of issue and guide. A service that is added has to be added
// here, and with it what it may reach and know.
var services = []string{
	"alarm", "bridge", "decoder", "demo", "grafana", "health", "init", "keeper", "mosquitto", "nats", "operator", "pgbouncer", "postgres", "prometheus",
	"provision", "registrar", "simulator", "timescaledb", "vault", "vault-bootstrap", "writer",
}

// TestHardening holds every rule against every service, in every variant.
func TestHardening(t *testing.T) {
	t.Parallel()
	assert.Equal(t, services, names(load(t, everything)))
	variants := map[string]variant{"compose.yaml": {}, "with all profiles": everything}
	for _, f := range overrides(t) {
		variants[f] = variant{files: []string{f}, profiles: []string{"*"}}
	}
	require.Contains(t, variants, "compose.ports.yaml")
	for name, v := range variants {
		project := load(t, v)
		for _, service := range names(project) {
			s := project.Services[service]
			for _, r := range rules {
				t.Run(name+"/"+service+"/"+r.name, func(t *testing.T) {
					t.Parallel()
					assert.Empty(t, r.check(&s))
				})
			}
		}
	}
}

// TestProfiles: without a profile nothing pretends to be a controller, asks for a
// token, or may change the secret files.
func TestProfiles(t *testing.T) {
	t.Parallel()
	plain := names(load(t, variant{}))
	assert.NotContains(t, plain, "simulator")
	assert.NotContains(t, plain, "demo")
	assert.NotContains(t, plain, "vault-bootstrap")
	assert.NotContains(t, plain, "operator")
	assert.Len(t, plain, len(services)-4)
}

// breakage breaks one rule.
type breakage struct {
	rule string
	how  func(*types.ServiceConfig)
}

var breakages = []breakage{
	{"runs as a user of its own, by number", func(s *types.ServiceConfig) { s.User = "" }},
	{"runs as a user of its own, by number", func(s *types.ServiceConfig) { s.User = "0:0" }},
	{"runs as a user of its own, by number", func(s *types.ServiceConfig) { s.User = "root" }},
	{"cannot write to its image", func(s *types.ServiceConfig) { s.ReadOnly = false }},
	{"has no capabilities", func(s *types.ServiceConfig) { s.CapDrop = nil }},
	{"has no capabilities", func(s *types.ServiceConfig) { s.CapAdd = []string{"CHOWN"} }},
	{"gains no privileges", func(s *types.ServiceConfig) { s.SecurityOpt = nil }},
	{"gains no privileges", func(s *types.ServiceConfig) { s.Privileged = true }},
	{"shares nothing of the host's or of others", func(s *types.ServiceConfig) { s.Pid = "host" }},
	{"shares nothing of the host's or of others", func(s *types.ServiceConfig) { s.NetworkMode = "host" }},
	{"has a temporary folder without programs", func(s *types.ServiceConfig) { s.Tmpfs = nil }},
	{"has a temporary folder without programs", func(s *types.ServiceConfig) { s.Tmpfs = types.StringList{"/tmp:size=1m,mode=1777"} }},
	{"has limits and reservations", func(s *types.ServiceConfig) { s.Deploy = nil }},
	{"has limits and reservations", func(s *types.ServiceConfig) {
		d := *s.Deploy
		d.Resources = types.Resources{Limits: &types.Resource{NanoCPUs: 1, MemoryBytes: 1 << 20}, Reservations: &types.Resource{NanoCPUs: 1, MemoryBytes: 1 << 20}}
		s.Deploy = &d
	}},
	{"has limits and reservations", func(s *types.ServiceConfig) {
		d := *s.Deploy
		d.Resources.Reservations = nil
		s.Deploy = &d
	}},
	{"may open files enough, and dumps no core", func(s *types.ServiceConfig) { s.Ulimits = nil }},
	{"rotates its log", func(s *types.ServiceConfig) { s.Logging = nil }},
	{"rotates its log", func(s *types.ServiceConfig) { s.Logging = &types.LoggingConfig{Driver: "json-file"} }},
	{"rotates its log", func(s *types.ServiceConfig) {
		driver := "none"
		if s.Name == "operator" {
			driver = "json-file"
		}
		s.Logging = &types.LoggingConfig{Driver: driver, Options: types.Options{"max-size": "1m", "max-file": "1"}}
	}},
	{"starts again when it ends", func(s *types.ServiceConfig) { s.Restart = "always" }},
	{"waits for what it needs", func(s *types.ServiceConfig) {
		s.DependsOn = types.DependsOnConfig{"init": {Condition: types.ServiceConditionStarted, Required: true}}
	}},
	{"is asked after", func(s *types.ServiceConfig) { s.HealthCheck = nil }}, // the image's own would be in force
	{"is of an exact version", func(s *types.ServiceConfig) { s.Image = "nats:latest" + digest }},
	{"is of an exact version", func(s *types.ServiceConfig) { s.Image = "nats" + digest }},
	{"is of an exact version", func(s *types.ServiceConfig) { s.Image = "nats:2" + digest }},
	{"has no secret in its environment or command", func(s *types.ServiceConfig) {
		s.Environment = types.MappingWithEquals{"MQTT_PASSWORD": new("x")}
	}},
	{"has no secret in its environment or command", func(s *types.ServiceConfig) {
		s.Environment = types.MappingWithEquals{"METADATA_DSN": new("postgres://a:b@postgres/metadata")}
	}},
	{"has no secret in its environment or command", func(s *types.ServiceConfig) {
		s.Environment = types.MappingWithEquals{"PLAIN": new("q83vEjRWeJASNFZ4kBI0VniQEjRWeJAS")}
	}},
	{"has no secret in its environment or command", func(s *types.ServiceConfig) {
		s.Environment = types.MappingWithEquals{"HOME": nil}
	}},
	{"has no secret in its environment or command", func(s *types.ServiceConfig) {
		s.Command = append(s.Command, "--password=x")
	}},
	{"mounts volumes as init left them, and folders to read", func(s *types.ServiceConfig) {
		s.Volumes = []types.ServiceVolumeConfig{{Type: "volume", Target: "/data"}}
	}},
	{"mounts volumes as init left them, and folders to read", func(s *types.ServiceConfig) {
		s.Volumes = []types.ServiceVolumeConfig{{Type: "bind", Source: "/", Target: "/host", ReadOnly: true}}
	}},
	{"mounts volumes as init left them, and folders to read", func(s *types.ServiceConfig) {
		s.Volumes = []types.ServiceVolumeConfig{{Type: "bind", Source: "/var/run/docker.sock", Target: "/s", ReadOnly: true, Bind: &types.ServiceVolumeBind{}}}
	}},
}

// digest is one of an image.
var digest = "@sha256:" + strings.Repeat("0", 64)

// TestByTag: the list of images without a digest has none that is used no more, or that
// has one.
func TestByTag(t *testing.T) {
	t.Parallel()
	var used []string
	for _, s := range load(t, everything).Services {
		used = append(used, s.Image)
	}
	for _, image := range byTag {
		assert.Contains(t, used, image)
	}
}

// longRunning breaks what holds for services that do not run to their end.
var longRunning = []breakage{
	{"has time to stop", func(s *types.ServiceConfig) { s.StopGracePeriod = nil }},
	{"starts again when it ends", func(s *types.ServiceConfig) { s.Restart = "" }},
	{"is asked after", func(s *types.ServiceConfig) {
		s.HealthCheck = &types.HealthCheckConfig{Test: types.HealthCheckTest{"CMD-SHELL", "exit 0"}}
	}},
	{"mounts volumes as init left them, and folders to read", func(s *types.ServiceConfig) {
		s.Volumes = []types.ServiceVolumeConfig{{Type: "volume", Source: "nats-data", Target: "/data"}}
	}},
}

// TestRulesSee is the control: each rule sees each service broken, and no other
// rule does.
func TestRulesSee(t *testing.T) {
	t.Parallel()
	covered := map[string]bool{"is of an exact content": true} // of images that are not ours
	for _, b := range append(breakages, longRunning...) {
		covered[b.rule] = true
	}
	for _, r := range rules {
		assert.True(t, covered[r.name], "no test breaks %q", r.name)
	}
	project := load(t, everything)
	for _, service := range services {
		s := project.Services[service]
		all := breakages
		if !own(&s) {
			all = append(slices.Clone(all), breakage{"is of an exact content", func(s *types.ServiceConfig) { s.Image = "busybox:1.37.0" }})
		}
		if !oneShot(&s) {
			all = slices.Concat(all, longRunning)
		}
		for _, b := range all {
			s := project.Services[service]
			s.Command = slices.Clone(s.Command)
			b.how(&s)
			assert.Equal(t, []string{b.rule}, broken(&s), service)
		}
	}
}
