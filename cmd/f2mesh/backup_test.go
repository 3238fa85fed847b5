package main

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	agecrypt "filippo.io/age"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
	"github.com/f2mesh/f2mesh/pkg/operate/ledger"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// command runs this program on a state directory.
func command(t *testing.T, st mesh.State, args ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), "F2MESH_TEST_RUN=1", "F2MESH_STATE_DIR="+st.Dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// agePair writes an identity to a file and answers its recipient.
func agePair(t *testing.T) (recipient, file string) {
	t.Helper()
	identity, err := agecrypt.GenerateX25519Identity()
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), "identity")
	require.NoError(t, os.WriteFile(file, []byte(identity.String()+"\n"), 0o600))
	return identity.Recipient().String(), file
}

func testSigner(t *testing.T) backup.Signer {
	t.Helper()
	signer, err := backup.NewSigner("a secret of tests")
	require.NoError(t, err)
	return signer
}

// mine sets traps as the writer, which owns the tables of readings: code that makes a
// superuser as soon as one runs it. Rows are there that a restore has to check.
func (m *testMesh) mine(t *testing.T) {
	t.Helper()
	user, password, err := m.Secrets.LogIn(t.Context(), "timescale_password")
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), m.Cluster.ConnString(user, password, mesh.DatabaseTelemetry))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(t.Context())) }()
	_, err = conn.Exec(t.Context(), `
		CREATE FUNCTION public.trap(x int) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN
			IF pg_catalog.current_setting('is_superuser') = 'on' THEN CREATE ROLE trapped SUPERUSER; END IF;
			RETURN true;
		END $$;
		CREATE TABLE public.mined (x int CHECK (public.trap(x)));
		INSERT INTO public.mined VALUES (1)`)
	require.NoError(t, err)
	require.Zero(t, m.count(t, "SELECT count(*) FROM pg_roles WHERE rolname = 'trapped'"), "the control: no superuser has run it")
}

// enrich gives the fleet's metadata what f2mesh does not know.
func (m *testMesh) enrich(t *testing.T) {
	t.Helper()
	m.sql(t, mesh.DatabaseMetadata, `
		CREATE TYPE fleet.mood AS ENUM ('good');
		ALTER TABLE fleet."Device" ADD COLUMN "Site" varchar(20) DEFAULT 'north';
		CREATE TABLE fleet."Site" ("Name" text PRIMARY KEY, "Mood" fleet.mood, "Doubled" int GENERATED ALWAYS AS (2) STORED);
		INSERT INTO fleet."Site" VALUES ('north', 'good')`)
}

// census counts all databases' rows.
func (m *testMesh) census(t *testing.T) map[string]map[string]int64 {
	t.Helper()
	all := map[string]map[string]int64{}
	for _, name := range m.Describe().Databases() {
		conn, err := m.Superuser(t.Context(), name)
		require.NoError(t, err)
		all[name] = countRows(t, conn)
		require.NoError(t, conn.Close(t.Context()))
	}
	return all
}

const listTables = `SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
	AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^(pg_toast|_timescaledb)'`

// countRows counts the rows of all tables, in one snapshot.
func countRows(t *testing.T, conn *pgx.Conn) map[string]int64 {
	t.Helper()
	tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	require.NoError(t, err)
	rows, err := tx.Query(t.Context(), listTables)
	require.NoError(t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Schema, Name string }])
	require.NoError(t, err)
	counts := map[string]int64{}
	for _, table := range tables {
		var n int64
		require.NoError(t, tx.QueryRow(t.Context(), "SELECT count(*) FROM "+pgx.Identifier{table.Schema, table.Name}.Sanitize()).Scan(&n))
		counts[table.Schema+"."+table.Name] = n
	}
	require.NoError(t, tx.Rollback(t.Context()))
	return counts
}

// balance is the ledger of everything.
func (m *testMesh) balance(t *testing.T) *ledger.Report {
	t.Helper()
	m.settled(t)
	report, err := ledger.Audit(t.Context(), m.js, m.rows, ledger.Options{})
	require.NoError(t, err)
	text := new(strings.Builder)
	_, err = report.WriteTo(text)
	require.NoError(t, err)
	require.True(t, report.Balanced(), text.String())
	require.Zero(t, report.Total.Pending, text.String())
	return report
}

// compress has TimescaleDB, where it is there, compress what there is, as it does with
// chunks of a week ago.
func (m *testMesh) compress(t *testing.T) {
	t.Helper()
	if m.count(t, "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'") == 0 {
		t.Log("no TimescaleDB: nothing is compressed")
		return
	}
	m.sql(t, mesh.DatabaseTelemetry, "SELECT public.compress_chunk(c) FROM public.show_chunks('public.measurement') c")
	require.NotZero(t, m.count(t, "SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed"))
}

// TestBackup saves a mesh during traffic and once more when all is quiet, and makes
// a mesh of each.
func TestBackup(t *testing.T) {
	t.Parallel()
	recipient, identity := agePair(t)
	dir := t.TempDir()
	busy, quiet := filepath.Join(dir, "busy"), filepath.Join(dir, "quiet")
	var before *ledger.Report
	var rows map[string]map[string]int64
	var atLeast int64 // rows
	var signer string

	t.Run("save", func(t *testing.T) {
		m := startMesh(t)
		require.NoError(t, m.State.Save(m.Describe()))
		lock, err := m.State.Lock() // as up holds it
		require.NoError(t, err)
		defer func() { _ = lock.Close() }()
		require.NoError(t, mesh.NoteHolder(lock))
		save := func(file string) {
			out, err := command(t, m.State, "backup", "--to", file, "--recipient", recipient)
			require.NoError(t, err, out)
			t.Log(out)
			_, rest, ok := strings.Cut(out, "signed by ")
			require.True(t, ok, out)
			signer, _, _ = strings.Cut(rest, "\n")
		}
		// It is the turn of the alternates, which a new cluster does not know.
		for _, name := range []string{mesh.SecretSuperuser, "timescale_password"} {
			out, err := command(t, m.State, "secret", "rotate", name)
			require.NoError(t, err, out)
		}
		p := m.startProof(t)
		atLeast = int64(m.count(t, "SELECT count(*) FROM measurement"))
		out, err := command(t, m.State, "backup", "--dry-run", "--to", busy, "--recipient", recipient)
		require.NoError(t, err, out)
		assert.Contains(t, out, "RAW")
		require.NoFileExists(t, busy)
		save(busy)
		p.flows(t) // the consumers go on
		p.halt()
		m.compress(t)
		before, rows = m.balance(t), m.census(t)
		save(quiet)
		require.Equal(t, rows, m.census(t), "the control: a backup changes nothing")
		secretsHidden(t, m, busy, quiet)
		refusals(t, quiet, recipient, identity)
	})
	require.NotNil(t, before)

	t.Run("restore what was quiet", func(t *testing.T) {
		m := restoreMesh(t, quiet, identity, signer)
		after := m.balance(t)
		assert.Equal(t, before.Total, after.Total)
		assert.Equal(t, before.Rows, after.Rows)
		assert.Len(t, after.Devices, len(before.Devices))
		assert.Equal(t, rows, m.census(t))
		goesOn(t, m)
	})

	t.Run("restore what was busy", func(t *testing.T) {
		m := restoreMesh(t, busy, identity, signer)
		after := m.balance(t) // of what was on its way, too
		assert.Less(t, after.Total.Received, before.Total.Received)
		assert.GreaterOrEqual(t, int64(m.count(t, "SELECT count(*) FROM measurement")), atLeast)
		for _, s := range after.Stages {
			assert.True(t, s.Copies == 0 || s.Name == "bridge", s.Name)
		}
		goesOn(t, m)
	})
}

// TestRestoreRunsNothing has the role with the fewest rights put code into a database, and
// a restore not run it: rows alone come back, into tables that this program makes.
func TestRestoreRunsNothing(t *testing.T) {
	t.Parallel()
	recipient, identity := agePair(t)
	file := filepath.Join(t.TempDir(), "archive")
	var signer string
	var rows map[string]map[string]int64
	t.Run("save", func(t *testing.T) {
		m := startMesh(t)
		require.NoError(t, m.State.Save(m.Describe()))
		lock, err := m.State.Lock() // as up holds it
		require.NoError(t, err)
		defer func() { _ = lock.Close() }()
		require.NoError(t, mesh.NoteHolder(lock))
		p := m.startProof(t)
		p.flows(t)
		p.halt()
		m.settled(t)
		m.forget(t)
		m.mine(t)
		m.enrich(t)
		rows = m.census(t)
		out, err := command(t, m.State, "backup", "--to", file, "--recipient", recipient)
		require.NoError(t, err, out)
		_, rest, _ := strings.Cut(out, "signed by ")
		signer, _, _ = strings.Cut(rest, "\n")
	})
	require.NotEmpty(t, rows)
	m := restoreMesh(t, file, identity, signer)
	assert.Equal(t, rows, m.census(t), "the control")
	m.unharmed(t)
	m.remembers(t)
	goesOn(t, m)
}

// forget has TimescaleDB, where it is there, drop readings that are aggregated: the
// aggregates are all that is left of them.
func (m *testMesh) forget(t *testing.T) {
	t.Helper()
	if m.count(t, "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'") == 0 {
		t.Log("no TimescaleDB: nothing is aggregated for good")
		return
	}
	m.sql(t, mesh.DatabaseTelemetry, "SELECT public.remove_retention_policy('public.measurement', if_exists => true)") // its job has just begun
	m.sql(t, mesh.DatabaseTelemetry, `INSERT INTO public.measurement (time, device_id, datapoint_id, value, received)
		SELECT '2026-01-02T00:30:00Z'::timestamptz + n * interval '1 hour', 1, 1, n, now() FROM generate_series(0, 47) n`)
	for _, name := range []string{"hourly", "daily"} {
		m.sql(t, mesh.DatabaseTelemetry, "CALL public.refresh_continuous_aggregate('public.measurement_"+name+"', NULL, NULL)")
	}
	m.sql(t, mesh.DatabaseTelemetry, "SELECT public.drop_chunks('public.measurement', older_than => '2026-02-01'::timestamptz)")
	m.compress(t)
	m.remembers(t)
}

// remembers requires the aggregates of what forget dropped.
func (m *testMesh) remembers(t *testing.T) {
	t.Helper()
	if m.count(t, "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'") == 0 {
		return
	}
	assert.Zero(t, m.count(t, "SELECT count(*) FROM measurement WHERE time < '2026-02-01'"))
	assert.Equal(t, 48, m.count(t, "SELECT count(*) FROM measurement_hourly WHERE bucket < '2026-02-01'"))
	assert.Equal(t, 2, m.count(t, "SELECT count(*) FROM measurement_daily WHERE bucket < '2026-02-01'"))
	assert.Equal(t, m.count(t, "SELECT count(*) FROM measurement WHERE value IS NOT NULL"),
		m.count(t, "SELECT sum(readings)::int FROM measurement_hourly WHERE bucket > '2026-02-01'"), "no reading is aggregated twice, or not at all")
}

// unharmed requires that nothing which mine set came into the mesh, and that what enrich
// gave it did.
func (m *testMesh) unharmed(t *testing.T) {
	t.Helper()
	assert.Zero(t, m.count(t, "SELECT count(*) FROM pg_roles WHERE rolname IN ('trapped', '"+mesh.RoleRestore+"')"))
	for what, query := range map[string]string{
		"functions":   "SELECT count(*) FROM pg_proc WHERE proname = 'trap'",
		"constraints": "SELECT count(*) FROM pg_constraint WHERE conname LIKE 'mined%'",
		"indexes":     "SELECT count(*) FROM pg_indexes WHERE tablename = 'mined'",
		"owners":      "SELECT count(*) FROM pg_class WHERE relname IN ('measurement', 'mined') AND relowner <> '" + mesh.RoleWriter + "'::regrole",
	} {
		assert.Zero(t, m.count(t, query), what)
	}
	conn, err := m.Superuser(t.Context(), mesh.DatabaseMetadata)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(t.Context())) }()
	var site, mood string
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT DISTINCT "Site", "Mood" FROM fleet."Device" JOIN fleet."Site" ON "Site" = "Name"`).Scan(&site, &mood))
	assert.Equal(t, "north good", site+" "+mood)
	var next bool // the sequence goes on behind the rows
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT nextval('fleet."Device_DeviceId_seq"') > max("DeviceId") FROM fleet."Device"`).Scan(&next))
	assert.True(t, next)
}

// told calls itself with each line that is written to it.
type told func(line string)

func (f told) Write(line []byte) (int, error) {
	f(string(line))
	return len(line), nil
}

// TestBackupWhileOthersWork looks on while the stages stand still.
func TestBackupWhileOthersWork(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	paused := func(stream, consumer string) bool {
		c, err := m.js.Consumer(t.Context(), stream, consumer)
		require.NoError(t, err)
		return c.CachedInfo().Paused
	}
	trail := func() uint64 {
		s, err := m.js.Stream(t.Context(), stream.Audit)
		require.NoError(t, err)
		return s.CachedInfo().State.LastSeq
	}
	registry, err := registrar.Open(t.Context(), m.State, m.DSN(mesh.RoleRegistrar, mesh.DatabaseRegistry), m.Issuer, m.Secrets, m.Log)
	require.NoError(t, err)
	defer registry.Close()
	recipient, _ := agePair(t)
	key, err := backup.Recipients([]string{recipient})
	require.NoError(t, err)
	w, err := backup.Create(filepath.Join(t.TempDir(), "archive"), key)
	require.NoError(t, err)
	defer w.Discard()
	b := &mesh.Saver{ArchiveWriter: w, Mesh: &mesh.Mesh{State: m.State, Description: m.Describe(), JetStream: m.js, Secrets: m.Secrets}}
	var sent uint64
	b.Out = told(func(line string) {
		if !strings.Contains(line, "stream DECODED") {
			return
		}
		assert.True(t, paused("RAW", "decoder"), "the control")
		assert.False(t, paused(stream.Commands, "bridge"), "a command does not wait for the backup")
		before := trail()
		require.NoError(t, registrar.NewTrail(registry.Pool.Pool).Record(t.Context(), registrar.Event{Time: time.Now(), Actor: "test", Action: registrar.RotateSecret}))
		eventually(t, func() bool { sent = trail(); return sent > before }, "the registrar does not send")
	})
	require.NoError(t, b.Save(t.Context()))
	require.NotZero(t, sent, "the control")
	i := slices.IndexFunc(b.Manifest.Streams, func(s stream.Snapshot) bool { return s.Name == stream.Audit })
	require.GreaterOrEqual(t, i, 0)
	assert.GreaterOrEqual(t, b.Manifest.Streams[i].LastSequence, sent, "what the registrar has sent and forgotten is in the backup")
}

// A folder that is a link would be missing from a backup that looks complete.
func TestBackupOfLinks(t *testing.T) {
	t.Parallel()
	recipient, identity := agePair(t)
	key, err := backup.Recipients([]string{recipient})
	require.NoError(t, err)
	st := mesh.State{Dir: t.TempDir()}
	elsewhere := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(elsewhere, "root.key"), []byte("key"), 0o400))
	require.NoError(t, os.Symlink(elsewhere, st.Path("pki")))
	file := filepath.Join(t.TempDir(), "archive")
	w, err := backup.Create(file, key)
	require.NoError(t, err)
	defer w.Discard()
	b := &mesh.Saver{ArchiveWriter: w, Mesh: &mesh.Mesh{State: st}, Out: io.Discard}
	require.ErrorContains(t, b.Folder("pki"), st.Path("pki")+" is neither a file nor a folder")
	require.NoError(t, os.Remove(st.Path("pki")))
	require.NoError(t, b.Folder("pki"), "there is none")
	require.NoError(t, os.Rename(elsewhere, st.Path("pki")))
	require.NoError(t, b.Folder("pki"), "the control")
	require.NoError(t, w.Commit(new(backup.Manifest), testSigner(t)))

	opener, err := backup.Identities(identity)
	require.NoError(t, err)
	archive, err := backup.Open(file, opener)
	require.NoError(t, err)
	defer func() { _ = archive.Close() }()
	require.Len(t, archive.Manifest.Parts, 1)
	assert.Equal(t, "files/pki/root.key", archive.Manifest.Parts[0].Name)
	assert.Equal(t, fs.FileMode(0o400), archive.Mode("files/pki/root.key"))
	assert.Equal(t, fs.FileMode(0o600), archive.Mode("files/none"))
}

// restoreMesh makes a mesh of a backup and starts it.
func restoreMesh(t *testing.T, file, identity, signer string) *testMesh {
	t.Helper()
	st := mesh.State{Dir: filepath.Join(accounttest.TempDir(t), "state")}
	left := leftover(t, st)
	out, err := command(t, st, "restore", "--from", file, "--identity", identity, "--signer", signer)
	t.Cleanup(func() {
		for _, server := range []string{"postgres", "mosquitto", "pgbouncer"} {
			assert.NoError(t, account.Remove(st.Path(server)))
		}
	})
	require.NoError(t, err, out)
	assert.NoFileExists(t, left)
	assert.NoFileExists(t, st.Path(local.RestoringFile))
	assert.Contains(t, out, " --no-simulate --controllers=0\n", "no demo fleet comes into it")
	t.Log(out)
	out, err = command(t, st, "restore", "--from", file, "--identity", identity, "--signer", signer)
	require.Error(t, err, "a mesh is there already")
	assert.Contains(t, out, "is not empty")
	return startMeshIn(t, st, testLog(t))
}

// leftover makes the directory what a restore that was killed leaves.
func leftover(t *testing.T, st mesh.State) (file string) {
	t.Helper()
	lock, err := st.Lock()
	require.NoError(t, err)
	require.NoError(t, lock.Close())
	require.NoError(t, os.WriteFile(st.Path(local.RestoringFile), nil, 0o600))
	file = st.Path("pki", "left")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	return file
}

// goesOn requires a device with its old certificate to reach the tables.
func goesOn(t *testing.T, m *testMesh) {
	t.Helper()
	p := m.startProof(t)
	p.finish(t)
	p.onceOnly(t)
	assert.Less(t, p.gap, 20*time.Second, "no consumer is still held")
}

func secretsHidden(t *testing.T, m *testMesh, files ...string) {
	t.Helper()
	for _, file := range files {
		info, err := os.Stat(file)
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.False(t, bytes.Contains(data, []byte("PRIVATE KEY")))
		assert.False(t, bytes.Contains(data, []byte("f2.raw.")))
		entries, err := os.ReadDir(m.State.SecretsDir())
		require.NoError(t, err)
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(m.State.SecretsDir(), e.Name()))
			require.NoError(t, err)
			if text = bytes.TrimSpace(text); len(text) > 8 {
				assert.False(t, bytes.Contains(data, text), e.Name())
			}
		}
	}
}

// refusals are of archives and keys that are not right, before anything is written.
func refusals(t *testing.T, file, recipient, identity string) {
	t.Helper()
	good, err := os.ReadFile(file)
	require.NoError(t, err)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	_, stranger := agePair(t)
	spoilt := filepath.Join(t.TempDir(), "spoilt")
	st := mesh.State{Dir: filepath.Join(t.TempDir(), "state")}
	for _, c := range []struct {
		name     string
		data     []byte
		identity string
		told     string
	}{
		{"as it is", good, identity, "every part is as it was written"},
		{"a flipped byte", flipped, identity, backup.ErrDamaged.Error()},
		{"truncated", good[:len(good)/2], identity, backup.ErrDamaged.Error()},
		{"another's key", good, stranger, "another recipient"},
		{"a forger's", forged(t, recipient), identity, "anybody who has the public key"},
	} {
		require.NoError(t, os.WriteFile(spoilt, c.data, 0o600))
		out, err := command(t, st, "restore", "--dry-run", "--from", spoilt, "--identity", c.identity)
		assert.NoDirExists(t, st.Dir, c.name)
		switch c.name {
		case "as it is":
			require.NoError(t, err, out)
			assert.Contains(t, out, c.told, c.name)
			continue
		case "a forger's":
			require.NoError(t, err, "a dry run runs nothing of it")
			out, err = command(t, st, "restore", "--from", spoilt, "--identity", c.identity, "--signer", "the mesh's own")
			require.Error(t, err, c.name)
			assert.Contains(t, out, "was not signed by the mesh's own")
			out, err = command(t, st, "restore", "--from", spoilt, "--identity", c.identity)
		}
		require.Error(t, err, c.name)
		assert.Contains(t, out, c.told, c.name)
		_, err = command(t, st, "restore", "--from", spoilt, "--identity", c.identity)
		require.Error(t, err, c.name)
		assert.NoDirExists(t, st.Dir, c.name)
	}
}

// forged is an archive of somebody who has the public key.
func forged(t *testing.T, recipient string) []byte {
	t.Helper()
	key, err := backup.Recipients([]string{recipient})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "forged")
	w, err := backup.Create(file, key)
	require.NoError(t, err)
	require.NoError(t, w.Commit(&backup.Manifest{}, testSigner(t)))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	return data
}

// A restore that breaks off leaves the directory as it was.
func TestRestoreBreaksOff(t *testing.T) {
	t.Parallel()
	recipient, identity := agePair(t)
	key, err := backup.Recipients([]string{recipient})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "archive")
	w, err := backup.Create(file, key)
	require.NoError(t, err)
	require.NoError(t, w.Commit(&backup.Manifest{}, testSigner(t))) // sound, and no mesh
	for _, made := range []bool{true, false} {
		st := mesh.State{Dir: filepath.Join(accounttest.TempDir(t), "state")}
		if !made {
			require.NoError(t, os.Mkdir(st.Dir, 0o700))
		}
		out, err := command(t, st, "restore", "--from", file, "--identity", identity, "--trusted")
		require.Error(t, err)
		assert.Contains(t, out, "no CA")
		if made {
			assert.NoDirExists(t, st.Dir)
			continue
		}
		entries, err := os.ReadDir(st.Dir)
		require.NoError(t, err)
		require.Len(t, entries, 1)
		assert.Equal(t, mesh.LockFile, entries[0].Name())
	}
}

// What a restore that was killed leaves is not taken for a mesh.
func TestRestoreKilled(t *testing.T) {
	t.Parallel()
	st := mesh.State{Dir: filepath.Join(accounttest.TempDir(t), "state")}
	left := leftover(t, st)
	out, err := command(t, st, "up")
	require.Error(t, err)
	assert.Contains(t, out, local.ErrRestoring.Error())
	require.NoError(t, local.RefuseFull(st), "it may begin anew")
	require.NoError(t, os.Remove(st.Path(local.RestoringFile)))
	require.ErrorContains(t, local.RefuseFull(st), "is not empty", "the control")
	require.NoError(t, os.RemoveAll(filepath.Dir(left)))
	require.NoError(t, local.RefuseFull(st), "a lock is nothing")
}

func TestStartCommand(t *testing.T) {
	t.Parallel()
	vault := mesh.IssuerFlags{Issuer: mesh.IssuerVault, Mount: "pki two"}
	command := mesh.StartCommand(mesh.State{Dir: "/srv"}, &backup.Manifest{Arguments: vault.Arguments()})
	assert.Contains(t, command, "up --state-dir '/srv' --no-simulate --controllers=0 '--issuer=vault' '--pki-mount=pki two'")
	assert.Empty(t, new(mesh.IssuerFlags).Arguments())
}
