package natsserver

import (
	"bytes"
	"fmt"
	"path/filepath"

	"github.com/google/renameio/v2"

	conf "github.com/f2mesh/f2mesh/nats"
)

// writeFiles puts the shipped configuration and the two files that it includes
// into the folder. A stand-alone nats-server takes them as they are.
func (c Config) writeFiles(number int) (string, error) {
	passwords, err := passwordsConf(c.Passwords)
	if err != nil {
		return "", err
	}
	lock, err := lockPasswords(c.Dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }()
	local, err := c.localConf(number)
	if err != nil {
		return "", err
	}
	main := filepath.Join(c.Dir, "nats-server.conf")
	for path, data := range map[string][]byte{
		main:                                conf.ServerConf,
		filepath.Join(c.Dir, "local.conf"):  local,
		filepath.Join(c.Dir, passwordsFile): passwords,
	} {
		if err := writeFile(path, data); err != nil {
			return "", err
		}
	}
	return main, nil
}

// localConf says where this server is. Paths are absolute, since the server takes
// relative ones from its working directory.
func (c Config) localConf(number int) ([]byte, error) {
	paths := []string{c.CertFile, c.KeyFile, filepath.Join(c.Dir, "streams")}
	for i := range paths {
		var err error
		if paths[i], err = filepath.Abs(paths[i]); err != nil {
			return nil, fmt.Errorf("writing local.conf: %w", err)
		}
	}
	name, block := soleName, ""
	if c.Cluster != nil {
		var err error
		if block, err = c.Cluster.block(); err != nil {
			return nil, err
		}
		name = c.Cluster.Name
	}
	return append(renderLocal(name, c.Host, number, monitorOff, paths[0], paths[1], paths[2]), block...), nil
}

// soleName is the name of a server that is in no cluster.
const soleName = "f2mesh"

// monitorOff has no port for monitoring over HTTP, which asks nobody for a login.
const monitorOff = "127.0.0.1:0"

func renderLocal(name, host string, number int, monitor, certFile, keyFile, storeDir string) []byte {
	var file bytes.Buffer
	file.WriteString("# Made by f2mesh at each start.\n")
	fmt.Fprintf(&file, "F2_NAME: %q\nF2_HOST: %q\nF2_PORT: %d\nF2_MONITOR: %q\n", name, host, number, monitor)
	fmt.Fprintf(&file, "F2_CERT_FILE: %q\nF2_KEY_FILE: %q\nF2_STORE_DIR: %q\n", certFile, keyFile, storeDir)
	return file.Bytes()
}

// writeFile replaces the file in one step; its mode is 600.
func writeFile(path string, data []byte) error {
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o600)); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	return nil
}
