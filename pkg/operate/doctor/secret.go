package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// leastLength is the guide's, leastKinds how many different characters a random
// password of that length has at the very least.
const (
	leastLength = 24
	leastKinds  = 10
)

func secretChecks() []Check {
	return []Check{
		{
			"secret-modes", "Secrets Management: Access Control", "modes of secret files, keys and their folders",
			"chmod 700 the folder, chmod 600 the files; rotate what others could have read", secretModes,
		},
		{
			"secret-entropy", "Secrets Management: Password Requirements", "length and variety of each password",
			"f2mesh secret rotate NAME makes a random one", secretEntropy,
		},
		{
			"secret-unique", "Secrets Management: Password Requirements", "passwords compared with each other",
			"f2mesh secret rotate NAME for one of each two", secretUnique,
		},
		{
			"secret-logs", "Security Validation: Logging security", "each password searched for in the mesh's logs",
			"rotate the secret, delete the log, and report how it came there", secretLogs,
		},
		{
			"secret-arguments", "Credential Management", "each password searched for in the arguments of all processes",
			"rotate the secret, and name its file instead of giving it as an argument", secretArguments,
		},
	}
}

// servers are the files with secrets in the servers' own folders.
func servers() []string {
	return []string{
		"nats/passwords.conf", "nats/context.json", "mosquitto/passwords", "mosquitto/server.key", "postgres/server.key",
		"pgbouncer/userlist.txt", "pgbouncer/server.key",
	}
}

// secretModes looks at the folder of secrets, at every key, and at what the servers
// have of them.
func secretModes(_ context.Context, m *Mesh) Finding {
	var paths []string
	trees := []string{m.path("secrets"), m.path("pki"), m.bundles()}
	if there(m.path("root-key")) {
		trees = append(trees, m.path("root-key"))
	}
	if m.Containers {
		trees = trees[:1]
	}
	for i, tree := range trees {
		err := filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
			if i == 0 || strings.HasSuffix(path, ".key") {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			return failed("%v", err)
		}
	}
	for _, file := range servers() {
		if !m.Containers {
			paths = append(paths, m.path(filepath.FromSlash(file)))
		}
	}
	var problems []string
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // replaced meanwhile, or not of this mesh
		case err != nil:
			problems = append(problems, err.Error())
		case info.Mode().Perm()&0o077 != 0:
			problems = append(problems, fmt.Sprintf("%s has mode %o", path, info.Mode().Perm()))
		}
	}
	seen := "%d files and folders, for their owner only"
	if m.Containers {
		seen += "; the volumes, which hold the keys, were not looked at"
	}
	return verdict(problems, seen, len(paths))
}

// passwords are those of all credentials, by name.
func (m *Mesh) passwords(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	for _, name := range m.Secrets {
		_, password, err := m.LogIn(ctx, name)
		if err != nil {
			return nil, err
		}
		all[name] = password
	}
	return all, nil
}

func secretEntropy(ctx context.Context, m *Mesh) Finding {
	all, err := m.passwords(ctx)
	if err != nil {
		return failed("%v", err)
	}
	var problems []string
	for _, name := range m.Secrets {
		kinds := map[rune]bool{}
		for _, c := range all[name] {
			kinds[c] = true
		}
		if len(all[name]) < leastLength || len(kinds) < leastKinds {
			problems = append(problems, name+" is too short or too simple")
		}
	}
	return verdict(problems, "%d passwords of %d characters and more", len(all), leastLength)
}

func secretUnique(ctx context.Context, m *Mesh) Finding {
	all, err := m.passwords(ctx)
	if err != nil {
		return failed("%v", err)
	}
	var problems []string
	first := map[string]string{}
	for _, name := range m.Secrets {
		if other, taken := first[all[name]]; taken {
			problems = append(problems, name+" is the same as "+other)
		}
		first[all[name]] = name
	}
	return verdict(problems, "%d passwords, all different", len(all))
}

func secretLogs(ctx context.Context, m *Mesh) Finding {
	files := m.logs()
	if len(files) == 0 {
		return notChecked("the mesh writes no log to a file: search what keeps its log")
	}
	return m.search(ctx, files)
}

func secretArguments(ctx context.Context, m *Mesh) Finding {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(files) == 0 {
		return notChecked("this system has no /proc to read arguments from")
	}
	return m.search(ctx, files)
}

// search looks for each password in the files.
func (m *Mesh) search(ctx context.Context, files []string) Finding {
	all, err := m.passwords(ctx)
	if err != nil {
		return failed("%v", err)
	}
	var problems []string
	read := 0
	for _, path := range files {
		text, err := os.ReadFile(path) //nolint:gosec // logs and arguments
		if err != nil {
			continue // the process has ended
		}
		read++
		for _, name := range m.Secrets {
			if bytes.Contains(text, []byte(all[name])) {
				problems = append(problems, name+" is in "+path)
			}
		}
	}
	if read == 0 {
		return notChecked("none of %d files can be read", len(files))
	}
	return verdict(problems, "%d passwords, in none of %d files", len(all), read)
}
