package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNotInstalled is returned by Start when no PostgreSQL server is found.
var ErrNotInstalled = errors.New("PostgreSQL is not installed (Debian: apt-get install postgresql)")

// Variable names the environment variable that chooses the folder of initdb and
// postgres, such as one that has TimescaleDB. f2mesh and its tests look there alone.
const Variable = "F2MESH_POSTGRES_BIN"

// folders are where packages put a server's programs, a folder a major version.
var folders = []string{ //nolint:gochecknoglobals // a constant list
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/opt/homebrew/opt/postgresql@*/bin",
}

// find returns the folder of initdb and postgres: the one that Variable names; else of
// the major version that made the data if there is any; else what PATH has, else the
// newest installed.
func find(ctx context.Context, data string) (string, error) {
	candidates, chosen := installed(), os.Getenv(Variable)
	if chosen != "" {
		if _, err := os.Stat(filepath.Join(chosen, "initdb")); err != nil { //nolint:gosec // chosen by the user who starts f2mesh
			return "", fmt.Errorf("%s must name the folder of initdb and postgres: %w", Variable, err)
		}
		candidates = []string{chosen}
	} else if program, err := exec.LookPath("initdb"); err == nil {
		if target, err := filepath.EvalSymlinks(program); err == nil {
			program = target // the libraries lie beside the program itself
		}
		candidates = slices.Insert(candidates, 0, filepath.Dir(program))
	}
	if len(candidates) == 0 {
		return "", ErrNotInstalled
	}
	text, err := os.ReadFile(filepath.Join(data, "PG_VERSION")) //nolint:gosec // the cluster's own folder
	if err != nil {
		return candidates[0], nil //nolint:nilerr // no data yet
	}
	for _, folder := range candidates {
		if version(ctx, folder) == major(string(text)) {
			return folder, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("looking for the programs of %s: %w", data, err)
	}
	if chosen != "" {
		return "", fmt.Errorf("the data in %s are PostgreSQL %d's: %s names a folder of another version, %s", data, major(string(text)), Variable, chosen)
	}
	return "", fmt.Errorf("the data in %s are PostgreSQL %d's, which is not installed (Debian: apt-get install postgresql-%[2]d; elsewhere %s may name its folder)", data, major(string(text)), Variable)
}

// version is the major version of the programs in a folder, 0 if they do not say.
func version(ctx context.Context, folder string) int {
	said, err := exec.CommandContext(ctx, filepath.Join(folder, "postgres"), "--version").Output() //nolint:gosec // a folder that was found
	if err != nil {
		return 0
	}
	return major(string(said))
}

// hasLibrary tells whether the server in a folder can load an extension's library.
func hasLibrary(folder, name string) bool {
	for _, place := range []string{"../lib", "../lib/postgresql"} {
		for _, suffix := range []string{".so", ".dylib"} {
			if _, err := os.Stat(filepath.Join(folder, place, name+suffix)); err == nil {
				return true
			}
		}
	}
	return false
}

// installed lists the folders that packages made, the newest version first.
func installed() []string {
	var found []string
	for _, pattern := range folders {
		matches, _ := filepath.Glob(filepath.Join(pattern, "initdb")) // the patterns are valid
		for _, program := range matches {
			found = append(found, filepath.Dir(program))
		}
	}
	slices.SortStableFunc(found, func(a, b string) int { return major(b) - major(a) })
	return found
}

// major is the first number in the text, such as a folder's name or PG_VERSION.
func major(text string) int {
	digits := strings.FieldsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	number, _ := strconv.Atoi(digits[0]) // all digits
	return number
}
