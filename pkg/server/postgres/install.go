package postgres

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
)

// ConfigFiles is the configuration folder of a server that somebody else starts, in a
// container that listens on all its addresses. It makes no data: the image does,
// as the role Superuser.
type ConfigFiles struct {
	// Dir is the folder to write. The server sees it as At, its data as DataDir,
	// and its Unix socket, on which its image prepares the data, in SocketDir.
	Dir, At, DataDir, SocketDir string
	// CertFile and KeyFile are the server's certificate.
	CertFile, KeyFile string
	// Settings are put behind our own in postgresql.conf, by name.
	Settings map[string]string
}

// Write brings the folder up to date. Whoever owns it must be whom the server runs
// as, or PostgreSQL refuses the key.
func (f ConfigFiles) Write() error {
	files := map[string]string{
		"postgresql.conf": f.conf(),
		// The image prepares new data through the socket, with the password.
		"pg_hba.conf":   "# Made by f2mesh.\nlocal all " + Superuser + " scram-sha-256\n" + strings.TrimPrefix(hba, "# Made by f2mesh.\n"),
		"pg_ident.conf": "",
	}
	for name, source := range map[string]string{"server.crt": f.CertFile, "server.key": f.KeyFile} {
		data, err := os.ReadFile(source) //nolint:gosec // the certificate that the caller names
		if err != nil {
			return fmt.Errorf("writing PostgreSQL's files: %w", err)
		}
		files[name] = string(data)
	}
	var self account.Account
	for name, text := range files {
		if err := self.WriteFile(filepath.Join(f.Dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("writing PostgreSQL's files: %w", err)
		}
	}
	return nil
}

// imageVersion is the lowest major version of the images in compose.yaml.
const imageVersion = 17

func (f ConfigFiles) conf() string {
	s := &starter{dir: f.At, version: imageVersion, cfg: Config{Host: "*", Settings: map[string]string{
		"data_directory": f.DataDir, "unix_socket_directories": f.SocketDir, // the last of a name holds
	}}}
	maps.Copy(s.cfg.Settings, f.Settings)
	const standard = 5432
	return s.settings(standard)
}
