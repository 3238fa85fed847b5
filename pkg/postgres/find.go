package postgres

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNotInstalled is returned by Start when no PostgreSQL server is found.
var ErrNotInstalled = errors.New("PostgreSQL is not installed (Debian: apt-get install postgresql)")

// folders are where packages put a server's programs, a folder a major version.
var folders = []string{ //nolint:gochecknoglobals // a constant list
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/opt/homebrew/opt/postgresql@*/bin",
}

// find returns the folder of initdb and postgres: of the major version that made
// the data if there is any, else the newest; else what PATH has.
func find(data string) (string, error) {
	candidates := installed()
	if text, err := os.ReadFile(filepath.Join(data, "PG_VERSION")); err == nil { //nolint:gosec // the cluster's own folder
		for _, folder := range candidates {
			if major(folder) == major(string(text)) {
				return folder, nil
			}
		}
	}
	if program, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(program), nil
	}
	if len(candidates) == 0 {
		return "", ErrNotInstalled
	}
	return candidates[0], nil
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
