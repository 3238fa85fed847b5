package postgres

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Fact: with data checksums PostgreSQL refuses a page in which a bit was flipped, of a
// table and of an index, and logs it. What is on other pages stays readable.
func TestFlippedBit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, relation, query string
	}{
		{"nothing", "", `SELECT count(*) FROM readings WHERE id > 0`},
		{"a table", "readings", `SELECT value FROM readings WHERE id = 1`},
		{"an index", "readings_pkey", `INSERT INTO readings VALUES (1, 'the same key')`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			var log bytes.Buffer
			cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			c := startCluster(t, cfg)
			conn := connect(t, c, cfg)
			_, err := conn.Exec(t.Context(), `CREATE TABLE readings (id int PRIMARY KEY, value text);
				INSERT INTO readings SELECT n, 'a value ' || n FROM generate_series(1, 1000) n`)
			require.NoError(t, err)
			var file string
			if test.relation != "" {
				require.NoError(t, conn.QueryRow(t.Context(), `SELECT pg_relation_filepath($1)`, test.relation).Scan(&file))
			}
			require.NoError(t, c.Stop(t.Context()))
			if file != "" {
				flipPage(t, filepath.Join(cfg.Dir, "data", file))
			}

			c = startCluster(t, cfg) // it starts: nothing is read yet
			conn = connect(t, c, cfg)
			_, err = conn.Exec(t.Context(), test.query)
			if test.relation == "" {
				require.NoError(t, err, "the control")
				return
			}
			refusal := new(pgconn.PgError)
			require.ErrorAs(t, err, &refusal)
			assert.Equal(t, "XX001", refusal.Code)
			assert.Contains(t, refusal.Message, "invalid page in block")
			if test.name == "a table" {
				var last string
				require.NoError(t, conn.QueryRow(t.Context(), `SELECT value FROM readings WHERE id = 1000`).Scan(&last))
				assert.Equal(t, "a value 1000", last)
			}
			require.NoError(t, c.Stop(t.Context()))
			assert.Contains(t, log.String(), "page verification failed")
			assert.Contains(t, log.String(), "invalid page in block")
		})
	}
}

// flipPage flips a bit in the first page.
func flipPage(t *testing.T, file string) {
	t.Helper()
	const inPage = 8000
	file, err := filepath.EvalSymlinks(file)
	require.NoError(t, err)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	var one [1]byte
	_, err = f.ReadAt(one[:], inPage)
	require.NoError(t, err)
	one[0] ^= 0x10
	_, err = f.WriteAt(one[:], inPage)
	require.NoError(t, err)
}
