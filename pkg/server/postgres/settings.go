package postgres

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// hba lets in whoever has a password and speaks TLS, and nobody else. The server
// has no Unix socket, on which other accounts of the machine could knock.
const hba = `# Made by f2mesh.
hostssl all all all scram-sha-256
`

// base is our postgresql.conf but for addresses and files. What is not named has
// PostgreSQL's default: above all fsync, synchronous_commit and full_page_writes
// stay on.
const base = `# Made by f2mesh at each start. ALTER SYSTEM is the place for changes by hand.
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
ssl = on
ssl_min_protocol_version = 'TLSv1.2'
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'

# The log goes to f2mesh's own. No statement, value or password ever does: an
# error's statement and its detail are left out here, what it quotes in f2mesh.
log_destination = 'stderr'
logging_collector = off
log_line_prefix = ''
log_error_verbosity = terse
log_min_error_statement = panic
log_statement = 'none'
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
`

// settings is the whole configuration file.
func (s *starter) settings(number int) string {
	var file strings.Builder
	file.WriteString(base)
	for _, setting := range [][2]string{
		{"listen_addresses", s.cfg.Host},
		{"port", strconv.Itoa(number)},
		{"data_directory", s.path("data")},
		{"hba_file", s.path("pg_hba.conf")},
		{"ident_file", s.path("pg_ident.conf")},
		{"ssl_cert_file", s.path("server.crt")},
		{"ssl_key_file", s.path("server.key")},
	} {
		writeSetting(&file, setting[0], setting[1])
	}
	if libraries := s.preloaded(); len(libraries) > 0 {
		writeSetting(&file, "shared_preload_libraries", strings.Join(libraries, ","))
	}
	if syncsWhole(s.version, kernel()) {
		writeSetting(&file, "recovery_init_sync_method", "syncfs")
	}
	for _, name := range slices.Sorted(maps.Keys(s.cfg.Settings)) {
		writeSetting(&file, name, s.cfg.Settings[name])
	}
	return file.String()
}

// preloaded are the libraries to preload: PostgreSQL refuses to start without one
// that it is told to.
func (s *starter) preloaded() []string {
	var libraries []string
	for _, name := range s.cfg.Preload {
		if hasLibrary(s.programs, name) {
			libraries = append(libraries, name)
		}
	}
	return libraries
}

func writeSetting(file *strings.Builder, name, value string) {
	quoted := strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(value)
	fmt.Fprintf(file, "%s = '%s'\n", name, quoted)
}
