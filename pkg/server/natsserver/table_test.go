package natsserver

import (
	"bytes"
	"flag"
	"fmt"
	"go/build"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	conf "github.com/f2mesh/f2mesh/nats"
)

var update = flag.Bool("update", false, "write nats/permissions.md")

const tableFile = "../../../nats/permissions.md"

const tableHead = `# Who may do what

What each NATS user can get through the server, tried with each subject below, with every subject of
JetStream's API for every stream and durable consumer (and for a stream OTHER and a consumer other), with every
subject of ` + "`f2.>`" + ` in use and with the services' endpoints. What has no line here, only ` + "`operator`" + ` may do; it may
do everything that the streams allow. ` + "`TestPermissionTable`" + ` compares this file with a running server, and writes it:
` + "`go test ./pkg/server/natsserver -run PermissionTable -update`" + `.

"Heard by" are the users besides the publisher and the operator whom a message reaches.

| subject | published by | heard by |
|---|---|---|
`

// TestPermissionTable has every user publish on every subject, and compares who is
// heard by the operator, in whose account the streams are, with the table.
func TestPermissionTable(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	s := startServer(t, cfg)
	clients, taps := map[string]*nats.Conn{}, map[string]*nats.Subscription{}
	for _, user := range Users() {
		clients[user] = connect(t, s, cfg, user, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		tap, err := clients[user].SubscribeSync(">")
		require.NoError(t, err)
		require.NoError(t, tap.SetPendingLimits(-1, -1))
		require.NoError(t, clients[user].Flush())
		taps[user] = tap
	}
	const mark = "published by "
	subjects := everySubject(t)
	for _, user := range Users() {
		for _, subject := range subjects {
			require.NoError(t, clients[user].Publish(subject, []byte(mark+user)))
		}
		require.NoError(t, clients[user].Flush())
	}
	publishers, hearers := map[string][]string{}, map[string][]string{}
	for _, user := range Users() {
		require.NoError(t, clients[user].Flush())
		for n, _, _ := taps[user].Pending(); n > 0; n-- {
			m, err := taps[user].NextMsg(0)
			require.NoError(t, err)
			publisher, ours := bytes.CutPrefix(m.Data, []byte(mark))
			switch {
			case !ours || user == string(publisher):
			case user == Operator:
				publishers[m.Subject] = append(publishers[m.Subject], string(publisher))
			case user != Sys && !slices.Contains(hearers[m.Subject], user): // Sys is where JetStream is asked
				hearers[m.Subject] = append(hearers[m.Subject], user)
			}
		}
	}
	table := tableHead
	for _, subject := range subjects {
		if len(publishers[subject])+len(hearers[subject]) > 0 {
			table += fmt.Sprintf("| `%s` | %s | %s |\n", subject, strings.Join(publishers[subject], ", "), strings.Join(hearers[subject], ", "))
		}
	}
	if *update {
		require.NoError(t, os.WriteFile(tableFile, []byte(table), 0o644))
	}
	want, err := os.ReadFile(tableFile)
	require.NoError(t, err)
	require.Equal(t, string(want), table, "nats-server.conf allows other things than nats/permissions.md says")
}

// everySubject lists what is tried.
func everySubject(t *testing.T) []string {
	t.Helper()
	services := []string{Bridge, Decoder, Writer, Registrar, Keeper, Health, Alarm}
	const place = "MAC.sensor-mode.1.sensor-1"
	all := []string{
		"f2.raw.tele." + place, "f2.decoded." + place, "f2.parked.MAC", "f2.command." + place, "f2.do." + place, "f2.result." + place, "f2.audit.issue.MAC", "f2.alarms.state.rule.door", "f2.alarms.test", "f2.alarms.change", "f2.replay",
		"f2.dead.other.reason.MAC", "f2.alarm.other.kind", "f2.other", "other", "$KV.LATEST." + place, "$KV.OTHER.key", "_INBOX.x", "$JS.FC.RAW.x",
		"$SRV.PING", "$SRV.INFO", "$SRV.STATS", "$SRV.PING.f2mesh-other", "$SYS.REQ.SERVER.PING.VARZ", "$SYS.ACCOUNT.F2.CONNECT",
	}
	for _, name := range append(services, Console, Operator) {
		all = append(all, "_INBOX_"+name+".x")
	}
	for _, name := range services {
		all = append(all, "f2.dead."+name+".reason.MAC", "f2.alarm."+name+".kind", "f2.ready."+name, "f2.secrets."+name, "f2.alarms."+name)
		for _, verb := range []string{"PING", "INFO", "STATS"} {
			all = append(all, "$SRV."+verb+".f2mesh-"+name, "$SRV."+verb+".f2mesh-"+name+".ID")
		}
	}
	all = append(all, everyRequest(t)...)
	slices.Sort(all)
	return slices.Compact(all)
}

// everyRequest is JetStream's API as the server's own source has it, for all streams and
// consumers.
func everyRequest(t *testing.T) (all []string) {
	t.Helper()
	server, err := build.Import("github.com/nats-io/nats-server/v2/server", ".", build.FindOnly)
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(server.Dir, "*.go"))
	require.NoError(t, err)
	templates := map[string]bool{"$JS.ACK.%s.%s.1.1.1.1.1": true}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`"(\$JS\.API\.[A-Z_.]+(?:\.%s)*)"`).FindAllSubmatch(source, -1) {
			if template := string(m[1]); !strings.HasSuffix(template, ".") {
				templates[template] = true
			}
		}
	}
	require.Greater(t, len(templates), 30, "the server's source reads differently")
	consumers := everyConsumer(t)
	for template := range templates {
		for stream, names := range consumers {
			switch strings.Count(template, "%s") {
			case 0:
				all = append(all, template)
			case 1:
				all = append(all, fmt.Sprintf(template, stream))
			case 2:
				for _, name := range names {
					all = append(all, fmt.Sprintf(template, stream, name))
				}
			case 3:
				for _, name := range names {
					all = append(all, fmt.Sprintf(template, stream, name, "f2.x"))
				}
			}
		}
	}
	for _, stage := range []string{Bridge, Decoder, Writer} {
		all = append(all, "$JS.API.DIRECT.GET.DEAD_LETTER.f2.dead."+stage+".reason.MAC")
	}
	return append(all, "$JS.API.DIRECT.GET.KV_LATEST.$KV.LATEST.MAC.x", "$JS.API.DIRECT.GET.RAW.f2.raw.x")
}

// everyConsumer are the durable consumers of each stream, and one that is not ours.
func everyConsumer(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{"OTHER": {"other"}}
	names, err := fs.Glob(conf.Files, "stream_*.json")
	require.NoError(t, err)
	for _, name := range names {
		var stream jetstream.StreamConfig
		unmarshal(t, name, &stream)
		all[stream.Name] = []string{"other"}
		own, err := fs.Glob(conf.Files, strings.Replace(strings.Replace(name, "stream_", "consumer_", 1), ".json", "_*.json", 1))
		require.NoError(t, err)
		for _, name := range own {
			var consumer jetstream.ConsumerConfig
			unmarshal(t, name, &consumer)
			all[stream.Name] = append(all[stream.Name], consumer.Durable)
		}
	}
	require.Len(t, slices.Collect(maps.Keys(all)), len(names)+1)
	return all
}
