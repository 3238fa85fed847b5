package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Known defaults that lose messages; the guide has no section for them.
const lossGuide = "Known loss defaults"

func lossChecks() []Check {
	return []Check{
		{
			"loss-nats-sync", lossGuide, "sync_interval of the running JetStream",
			"sync_interval: always in nats-server.conf, and restart", natsSync,
		},
		{
			"loss-broker-queue", lossGuide, "persistence, autosave, and limits of queues and memory in the broker's mosquitto.conf",
			"take the lines that are named as shipped in mosquitto/mosquitto.conf, and restart the broker", brokerQueue,
		},
		{
			"loss-broker-version", lossGuide, "a controller's publish with its MAC in upper case, which is granted with Mosquitto 2.1 alone",
			"Mosquitto 2.1, and restart the mesh", brokerVersion,
		},
		{
			"loss-stream-limits", lossGuide, "each stream's storage, discard policy and limit, and the disk's room for all of them",
			"take nats/stream_*.json as shipped; a larger disk, or smaller max_bytes", streamLimits,
		},
		{
			"loss-postgres-sync", lossGuide, "fsync, synchronous_commit and full_page_writes of the running PostgreSQL",
			"ALTER SYSTEM RESET the setting, and reload", postgresSync,
		},
	}
}

func natsSync(ctx context.Context, m *Mesh) Finding {
	var answer struct {
		Data struct {
			JetStream struct {
				Config *struct {
					SyncAlways bool `json:"sync_always"`
				}
			}
		}
	}
	nc, err := m.natsUser(ctx, sysNATS)
	if err != nil {
		return failed("the server cannot be asked: %v", err)
	}
	defer nc.Close()
	reply, err := nc.Request("$SYS.REQ.SERVER.PING.VARZ", nil, 10*time.Second)
	if err == nil {
		err = json.Unmarshal(reply.Data, &answer)
	}
	config := answer.Data.JetStream.Config
	switch {
	case err != nil:
		return failed("the server cannot be asked: %v", err)
	case config == nil:
		return failed("JetStream is off")
	case !config.SyncAlways:
		return failed("a publish is acknowledged before it is on disk")
	}
	return ok("each publish is on disk before it is acknowledged")
}

// maxAutosave is the longest time between two saves of the broker, in seconds.
// Mosquitto's own default is 1800.
const maxAutosave = 60

// brokerQueue reads the file: Mosquitto tells nobody its settings.
func brokerQueue(_ context.Context, m *Mesh) Finding {
	text, err := os.ReadFile(m.path("mosquitto", "mosquitto.conf"))
	if err != nil {
		return notChecked("the broker's configuration is not here: %v", err)
	}
	set := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		set[name] = strings.TrimSpace(value)
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(set[name]) // 0: not there
		return n
	}
	wrong := map[string]bool{
		"persistence":          set["persistence"] != "true",
		"autosave_interval":    set["autosave_on_changes"] != "true" && (number("autosave_interval") < 1 || number("autosave_interval") > maxAutosave),
		"max_queued_messages":  number("max_queued_messages") < 1_000_000 || number("max_queued_messages") > 100_000_000, // 1,000 by default, 0 cuts clients off
		"max_queued_bytes":     number("max_queued_bytes") < 64<<20,
		"upgrade_outgoing_qos": set["upgrade_outgoing_qos"] != "true",
		"max_packet_size":      number("max_packet_size") < 1<<20,
		// Without one the kernel ends a broker that one controller has filled.
		"memory_limit": number("memory_limit") < 1<<30,
		// Acknowledges what it drops.
		"message_size_limit": number("message_size_limit") != 0,
	}
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		if wrong[name] {
			problems = append(problems, fmt.Sprintf("%s is %q", name, set[name]))
		}
	}
	if len(problems) == 0 && set["retain_available"] != "false" {
		return warning("retained messages are on (F2MESH_MQTT_RETAINED): each controller can fill the broker's memory with them, for good")
	}
	return verdict(problems, "saved every %s s or at each change; up to %s bytes wait for a client, all of them take %s", set["autosave_interval"], set["max_queued_bytes"], set["memory_limit"])
}

// brokerVersion has a controller publish in upper case. Mosquitto tells its version by a
// retained message, and these are off.
func brokerVersion(ctx context.Context, m *Mesh) Finding {
	all := true
	f := m.withParty(ctx, func(p *party) ([]string, error) {
		id := marker()
		upper := "tele/f2-" + strings.ToUpper(p.oneName) + "/" + id
		own := "tele/f2-" + p.oneName + "/" + id
		if err := p.onlooker.subscribe(upper, own); err != nil {
			return nil, err
		}
		if err := p.one.publish(upper, own); err != nil {
			return nil, err
		}
		seen, err := p.onlooker.until(own)
		all = slices.Contains(seen, upper)
		return nil, err
	})
	switch {
	case f.State != OK:
		return f
	case !all:
		return warning("the broker is older than Mosquitto 2.1, and is granted two of the six spellings of a controller's MAC: what is published in upper case or with colons is acknowledged and dropped, and raises the alarm connected_but_unheard; it also stands still at each change of the fleet, for 0.3 s at 5,000 controllers and for 4 s at 20,000")
	}
	return ok("all spellings of a controller's MAC are granted")
}

// streamsNeeded are those without which messages have nowhere to go.
func streamsNeeded() []string {
	return []string{stream.Raw, stream.Decoded, stream.DeadLetter, stream.Commands, stream.Audit}
}

func streamLimits(ctx context.Context, m *Mesh) Finding {
	nc, err := m.natsUser(ctx, operatorNATS)
	if err != nil {
		return failed("%v", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return failed("%v", err)
	}
	var problems []string
	var missing uint64 // bytes that the streams may still take
	found := map[string]bool{}
	streams := js.ListStreams(ctx)
	for s := range streams.Info() {
		found[s.Config.Name] = true
		problems = append(problems, streamProblems(s.Config)...)
		if limit := s.Config.MaxBytes; s.Config.Storage == jetstream.FileStorage && limit > 0 && uint64(limit) > s.State.Bytes {
			missing += uint64(limit) - s.State.Bytes
		}
	}
	if err := streams.Err(); err != nil {
		return failed("the streams cannot be listed: %v", err)
	}
	for _, name := range streamsNeeded() {
		if !found[name] {
			problems = append(problems, "there is no stream "+name)
		}
	}
	if m.Containers && len(problems) == 0 {
		return notChecked("%d streams have limits and may grow by %d MiB; what room the disk of their volume has is not seen from here", len(found), missing>>20)
	}
	if m.Containers {
		return verdict(problems, "")
	}
	free, err := m.Free(m.path("nats"))
	if err != nil {
		return failed("%v", err)
	}
	if free < missing {
		problems = append(problems, fmt.Sprintf("the disk has %d MiB left, the streams may grow by %d MiB", free>>20, missing>>20))
	}
	return verdict(problems, "%d streams may grow by %d MiB, the disk has %d MiB left", len(found), missing>>20, free>>20)
}

func streamProblems(c jetstream.StreamConfig) (problems []string) {
	if c.Storage != jetstream.FileStorage {
		problems = append(problems, c.Name+" is in memory")
	}
	if c.MaxBytes <= 0 {
		problems = append(problems, c.Name+" has no limit")
	}
	if c.Discard != jetstream.DiscardNew && slices.Contains(streamsNeeded(), c.Name) && c.Name != stream.DeadLetter { // which counts what it drops
		problems = append(problems, c.Name+" drops its oldest messages when it is full")
	}
	return problems
}

// DiskFree is how many bytes an ordinary user may still write to the folder's disk.
func DiskFree(path string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, fmt.Errorf("asking how much room %s has: %w", path, err)
	}
	return s.Bavail * uint64(s.Bsize), nil //nolint:gosec // a block's size is not negative
}

func postgresSync(ctx context.Context, m *Mesh) Finding {
	var problems []string
	for _, database := range []string{metadata, telemetry} { // each may have a server of its own
		off, err := m.turnedOff(ctx, database)
		if err != nil {
			return failed("cannot be asked: %v", err)
		}
		problems = append(problems, off...)
	}
	slices.Sort(problems)
	return verdict(slices.Compact(problems), "all on")
}

func (m *Mesh) turnedOff(ctx context.Context, database string) (problems []string, err error) {
	conn, err := m.role(ctx, superuser, database)
	if err != nil {
		return nil, err
	}
	defer hangUp(ctx, conn)
	for _, name := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		var value string
		if err := conn.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value); err != nil {
			return nil, err
		}
		if value != "on" {
			problems = append(problems, name+" is "+value)
		}
	}
	return problems, nil
}
