package compose

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// published are all ports that are reachable from outside of the containers: the
// security guide's matrix. What is in the clear, or for tools beside the mesh, is
// on this machine alone.
var published = map[string][]string{
	"mosquitto": {"127.0.0.1:1883->1883", "127.0.0.1:1884->1884", "0.0.0.0:8883->8883", "0.0.0.0:9001->9001"},
	"nats":      {"127.0.0.1:4222->4222"},
	"pgbouncer": {"127.0.0.1:6432->6432"},
	"registrar": {"0.0.0.0:8443->8443"},
	"health":    {"0.0.0.0:8000->8000"},
	"grafana":   {"0.0.0.0:3000->3000"},
}

// networks are who hears whom.
var networks = map[string][]string{
	"init": {}, "operator": {"data", "mesh"}, "provision": {"data", "mesh"}, "demo": {"data", "mesh"},
	"mosquitto": {"devices", "mesh"}, "nats": {"mesh", "operations"}, "vault": {"mesh"}, "vault-bootstrap": {"mesh"},
	"postgres": {"data"}, "timescaledb": {"data"}, "pgbouncer": {"data", "operations"},
	"bridge": {"mesh"}, "keeper": {"mesh"}, "decoder": {"data", "mesh"}, "writer": {"data", "mesh"},
	"alarm": {"mesh", "operations"}, "health": {"data", "mesh", "operations"}, "prometheus": {"mesh", "monitoring"}, "grafana": {"data", "monitoring", "operations"},
	"registrar": {"data", "devices", "mesh"}, "simulator": {"devices"},
}

func ports(project *types.Project) map[string][]string {
	all := map[string][]string{}
	for name, s := range project.Services {
		for _, p := range s.Ports {
			all[name] = append(all[name], fmt.Sprintf("%s:%s->%d", p.HostIP, p.Published, p.Target))
		}
	}
	return all
}

func TestPorts(t *testing.T) {
	t.Parallel()
	assert.Equal(t, published, ports(load(t, everything)))

	exposed := maps.Clone(published)
	exposed["postgres"], exposed["timescaledb"] = []string{"127.0.0.1:5432->5432"}, []string{"127.0.0.1:5433->5432"}
	assert.Equal(t, exposed, ports(load(t, variant{files: []string{"compose.ports.yaml"}, profiles: []string{"*"}})), "EXPOSE_DATABASE_PORTS")

	moved := ports(load(t, variant{settings: []string{"F2MESH_ADDRESS=192.0.2.1", "F2MESH_SERVICE_ADDRESS=192.0.2.2"}}))
	assert.Equal(t, []string{"192.0.2.2:1883->1883", "192.0.2.2:1884->1884", "192.0.2.1:8883->8883", "192.0.2.1:9001->9001"}, moved["mosquitto"])
}

// TestPublishedAreReachable: a published port needs a network with a way in.
func TestPublishedAreReachable(t *testing.T) {
	t.Parallel()
	for _, files := range [][]string{nil, overrides(t)} {
		project := load(t, variant{files: files, profiles: []string{"*"}})
		for name, s := range project.Services {
			open := slices.ContainsFunc(slices.Collect(maps.Keys(s.Networks)), func(n string) bool { return !project.Networks[n].Internal })
			assert.True(t, len(s.Ports) == 0 || open, "%s publishes ports and is on internal networks alone", name)
		}
	}
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	project := load(t, everything)
	for name, s := range project.Services {
		assert.Equal(t, networks[name], append([]string{}, slices.Sorted(maps.Keys(s.Networks))...), name)
	}
	assert.Equal(t, "none", project.Services["init"].NetworkMode, "it has what nobody else has together")
	internal := map[string]bool{}
	for name, n := range project.Networks {
		internal[name] = n.Internal
		assert.Equal(t, "bridge", n.Driver, name)
		assert.False(t, bool(n.External), name)
	}
	assert.Equal(t, map[string]bool{"devices": false, "mesh": true, "data": true, "operations": false, "monitoring": true}, internal)
}

// TestPrometheus: it has no password, so it listens only where Grafana is, at an address
// that nobody else is given; and it asks the services by theirs.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	for _, settings := range [][]string{nil, {"F2MESH_SUBNET=10.77"}} {
		project := load(t, variant{profiles: []string{"*"}, settings: settings})
		address := netip.MustParseAddr(project.Services["prometheus"].Networks["monitoring"].Ipv4Address)
		var listens []string
		for _, argument := range project.Services["prometheus"].Command {
			if on, ok := strings.CutPrefix(argument, "--web.listen-address="); ok {
				listens = append(listens, on)
			}
		}
		assert.Equal(t, []string{address.String() + ":9090"}, listens)
		monitoring := project.Networks["monitoring"].Ipam.Config[0]
		assert.True(t, netip.MustParsePrefix(monitoring.Subnet).Contains(address))
		assert.False(t, netip.MustParsePrefix(monitoring.IPRange).Contains(address), "the engine may give it to another")
	}
	var there []string
	for name, on := range networks {
		if slices.Contains(on, "monitoring") {
			there = append(there, name)
		}
	}
	assert.ElementsMatch(t, []string{"prometheus", "grafana"}, there)
	assert.Contains(t, readFile(t, "prometheus/prometheus.yml"), "password_file: /run/secrets/metrics_password")
	for _, name := range append([]string{"prometheus"}, clients...) {
		assert.Contains(t, known[name], "metrics_password", name)
	}
}

// TestDependenciesAreReachable: who waits for a server talks to it.
func TestDependenciesAreReachable(t *testing.T) {
	t.Parallel()
	project := load(t, everything)
	for name, s := range project.Services {
		for on := range s.DependsOn {
			other := project.Services[on]
			if oneShot(&other) {
				continue
			}
			shared := slices.ContainsFunc(networks[name], func(n string) bool { return slices.Contains(networks[on], n) })
			assert.True(t, shared, "%s depends on %s and shares no network with it", name, on)
		}
	}
}

func TestSubnets(t *testing.T) {
	t.Parallel()
	for setting, within := range map[string]string{"": "172.20.0.0/16", "F2MESH_SUBNET=10.77": "10.77.0.0/16"} {
		v := variant{}
		if setting != "" {
			v.settings = []string{setting}
		}
		var seen []netip.Prefix
		for name, n := range load(t, v).Networks {
			require.Len(t, n.Ipam.Config, 1, name)
			subnet, err := netip.ParsePrefix(n.Ipam.Config[0].Subnet)
			require.NoError(t, err, name)
			assert.True(t, netip.MustParsePrefix(within).Overlaps(subnet) && subnet.Bits() >= 16, "%s is in %s", name, subnet)
			for _, other := range seen {
				assert.False(t, other.Overlaps(subnet), "%s and %s", other, subnet)
			}
			seen = append(seen, subnet)
		}
	}
}

// TestReachSees is the control of the tables.
func TestReachSees(t *testing.T) {
	t.Parallel()
	project := change(t, "postgres", func(s *types.ServiceConfig) {
		s.Ports = []types.ServicePortConfig{{Target: 5432, Published: "5432"}}
	})
	assert.NotEqual(t, published, ports(project))
	project = change(t, "nats", func(s *types.ServiceConfig) {
		s.Ports = append(s.Ports, types.ServicePortConfig{HostIP: "127.0.0.1", Target: 8222, Published: "8222"})
	})
	assert.NotEqual(t, published, ports(project))
}
