package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// secretModes reads the modes of the directory of secrets, of every key, and of the copies that
// servers have.
func secretModes(_ context.Context, t *Target) Finding {
	var problems []string
	checked := 0
	inspect := func(path string) {
		checked++
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // replaced meanwhile, or not of this mesh
		case err != nil:
			problems = append(problems, err.Error())
		case info.Mode().Perm()&0o077 != 0:
			problems = append(problems, fmt.Sprintf("%s has mode %o", path, info.Mode().Perm()))
		}
	}
	walk := func(tree, suffix string) {
		ensure(filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(path, suffix) {
				inspect(path)
			}
			return err
		}))
	}
	walk(t.path("secrets"), "")
	if t.Containers {
		return verdict(problems, "%d files and directories are private; the volumes, which have the keys, were not checked", checked)
	}
	walk(t.path("pki"), ".key")
	walk(t.bundles(), ".key")
	if exists(t.path("root-key")) {
		walk(t.path("root-key"), ".key")
	}
	for _, file := range []string{
		"nats/passwords.conf", "nats/context.json", "mosquitto/passwords", "mosquitto/server.key", "postgres/server.key",
		"pgbouncer/userlist.txt", "pgbouncer/server.key",
	} {
		inspect(t.path(filepath.FromSlash(file)))
	}
	return verdict(problems, "%d files and directories are private", checked)
}

func secretEntropy(ctx context.Context, t *Target) Finding {
	const leastLength, leastKinds = 24, 10 // the guide's, and the different characters of a random password of that length
	all := t.passwords(ctx)
	var problems []string
	for _, name := range t.Secrets {
		characters := []rune(all[name])
		slices.Sort(characters)
		if len(characters) < leastLength || len(slices.Compact(characters)) < leastKinds {
			problems = append(problems, name+" is too short or too simple")
		}
	}
	return verdict(problems, "%d passwords of %d or more characters", len(all), leastLength)
}

func secretUnique(ctx context.Context, t *Target) Finding {
	all := t.passwords(ctx)
	var problems []string
	first := map[string]string{}
	for _, name := range t.Secrets {
		if other, taken := first[all[name]]; taken {
			problems = append(problems, name+" is the same as "+other)
		}
		first[all[name]] = name
	}
	return verdict(problems, "%d passwords, all different", len(all))
}

func secretLogs(ctx context.Context, t *Target) Finding { return t.search(ctx, t.logs()) }

func secretArguments(ctx context.Context, t *Target) Finding {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	need(len(files) > 0, "this system has no /proc to read arguments from")
	return t.search(ctx, files)
}

func (t *Target) search(ctx context.Context, files []string) Finding {
	all := t.passwords(ctx)
	var problems []string
	read := 0
	for _, path := range files {
		text, err := os.ReadFile(path) //nolint:gosec // logs and arguments
		if err != nil {
			continue // the process has exited
		}
		read++
		for _, name := range t.Secrets {
			if strings.Contains(string(text), all[name]) {
				problems = append(problems, name+" is in "+path)
			}
		}
	}
	need(read > 0, "none of %d files can be read", len(files))
	return verdict(problems, "%d passwords, in none of %d files", len(all), read)
}
