package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCheck has each breach once in a project that is sound without it.
func TestCheck(t *testing.T) {
	sound := map[string]string{
		"go.mod":               "module example.com/mesh\n\ngo 1.26\n",
		"cmd/f2mesh/main.go":   "package main\n\nfunc main() { run() }\n",
		"cmd/f2mesh/run.go":    "package main\n\nfunc run() {}\n",
		"pkg/mesh/mesh.go":     "package mesh\n\ntype Mesh struct{ s state }\n",
		"pkg/mesh/state.go":    "package mesh\n\ntype state struct{}\n",
		"pkg/mesh/up/up.go":    "package up\n\ntype Config struct{}\n",
		"services/a/config.go": "package a\n\ntype Config struct{}\n",
	}
	for name, test := range map[string]struct {
		change map[string]string
		want   []string // a part of each breach
	}{
		"sound": {},
		"a circle of two files": {
			map[string]string{"pkg/mesh/state.go": "package mesh\n\ntype state struct{ m *Mesh }\n"},
			[]string{"example.com/mesh/pkg/mesh: references between these files run in a circle: mesh.go, state.go"},
		},
		"a circle by way of a method": {
			map[string]string{
				"cmd/f2mesh/main.go": "package main\n\ntype program struct{}\n\nfunc (program) stop() {}\n\nfunc main() { run() }\n",
				"cmd/f2mesh/run.go":  "package main\n\nfunc run() { program{}.stop() }\n",
			},
			[]string{"example.com/mesh/cmd/f2mesh: references between these files run in a circle: main.go, run.go"},
		},
		"a name twice": {
			map[string]string{"services/a/mesh.go": "package a\n\ntype Mesh struct{}\n"},
			[]string{"the type name Mesh stands in example.com/mesh/pkg/mesh, example.com/mesh/services/a"},
		},
		"a long file": {
			map[string]string{"services/a/long.go": "package a\n" + strings.Repeat("\n", maxFileLines)},
			[]string{"long.go has 401 lines"},
		},
		"a long program": {
			map[string]string{"cmd/f2mesh/run.go": "package main\n\nfunc run() {}\n" + strings.Repeat("\n", maxProgramLines)},
			[]string{"run.go has ", "cmd/f2mesh has "},
		},
		"many folders": {
			map[string]string{
				"pkg/a/a.go": "package a\n", "pkg/b/b.go": "package b\n", "pkg/c/c.go": "package c\n", "pkg/d/d.go": "package d\n",
				"pkg/e/e.go": "package e\n", "pkg/f/f.go": "package f\n", "pkg/g/g.go": "package g\n", "pkg/h/h.go": "package h\n",
				"pkg/i/i.go": "package i\n",
			},
			[]string{"pkg has 10 folders"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, files := range []map[string]string{sound, test.change} {
				for path, text := range files {
					path = filepath.Join(root, path)
					if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			breaches, err := check(root)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(breaches, test.want, strings.Contains) {
				t.Errorf("got %q, want %q", breaches, test.want)
			}
		})
	}
}
