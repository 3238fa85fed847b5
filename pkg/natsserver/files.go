package natsserver

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"

	conf "github.com/f2mesh/f2mesh/nats"
)

// writeFiles puts the shipped configuration and the two files that it includes
// into the folder. A stand-alone nats-server takes them as they are.
func (c Config) writeFiles(number, monitor int) (string, error) {
	passwords, err := passwordsConf(c.Passwords)
	if err != nil {
		return "", err
	}
	local, err := c.localConf(number, monitor)
	if err != nil {
		return "", err
	}
	main := filepath.Join(c.Dir, "nats-server.conf")
	for path, data := range map[string][]byte{
		main:                                   conf.ServerConf,
		filepath.Join(c.Dir, "local.conf"):     local,
		filepath.Join(c.Dir, "passwords.conf"): passwords,
	} {
		if err := writeFile(path, data); err != nil {
			return "", err
		}
	}
	return main, nil
}

// localConf says where this server is. Paths are absolute, since the server takes
// relative ones from its working directory.
func (c Config) localConf(number, monitor int) ([]byte, error) {
	paths := []string{c.CertFile, c.KeyFile, filepath.Join(c.Dir, "streams")}
	for i := range paths {
		var err error
		if paths[i], err = filepath.Abs(paths[i]); err != nil {
			return nil, fmt.Errorf("writing local.conf: %w", err)
		}
	}
	var file bytes.Buffer
	file.WriteString("# Made by f2mesh at each start.\n")
	fmt.Fprintf(&file, "F2_HOST: %q\nF2_PORT: %d\nF2_MONITOR: %q\n", c.Host, number, net.JoinHostPort(c.Host, strconv.Itoa(monitor)))
	fmt.Fprintf(&file, "F2_CERT_FILE: %q\nF2_KEY_FILE: %q\nF2_STORE_DIR: %q\n", paths[0], paths[1], paths[2])
	return file.Bytes(), nil
}

// passwordsConf holds a hash for every user of the configuration; one without a
// password gets that of a random one that nobody knows. The cost is bcrypt's
// lowest: the passwords are at least 24 random bytes, which no cost makes harder
// to guess, and each connection pays it.
func passwordsConf(passwords map[string]string) ([]byte, error) {
	var file bytes.Buffer
	file.WriteString("# Made by f2mesh at each start: bcrypt hashes of the users' passwords.\n")
	for _, user := range Users() {
		password, ok := passwords[user]
		if !ok {
			password = rand.Text()
		}
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			return nil, fmt.Errorf("hashing the password of %s: %w", user, err)
		}
		fmt.Fprintf(&file, "%s_PASSWORD: %q\n", strings.ToUpper(user), hash)
	}
	return file.Bytes(), nil
}

// writeFile replaces the file in one step; its mode is 600.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already once renamed
	_, err = f.Write(data)
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	return nil
}
