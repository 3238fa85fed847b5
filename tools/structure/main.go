// Structure checks what docs/design.md says of the folders and what no linter checks:
//   - references between the files of cmd/f2mesh, and of each package of pkg/mesh, run in no circle
//   - no exported type name stands in two packages with two meanings
//   - no file outside tests has more than 400 lines, and cmd/f2mesh has fewer than 2,500
//   - pkg has at most nine folders
//
// It runs in the root of the project, prints each breach and exits with 1 if there is one.
package main

import (
	"fmt"
	"go/ast"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

const (
	maxFileLines    = 400
	maxProgramLines = 2500 // of cmd/f2mesh
	maxFolders      = 9    // of pkg
)

// sameMeaning are the type names that mean the same in every package that has them.
var sameMeaning = []string{
	"Admin",       // changes the users of a server
	"Client",      // a session with a server
	"Config",      // the settings of the package's part
	"Process",     // the part as a process of its own
	"ConfigFiles", // the files that a server starts from
	"Error",       // why the package refused its input
	"Server",      // a server that runs
}

func main() {
	breaches, err := check(".")
	for _, b := range breaches {
		fmt.Println(b)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "structure:", err)
	}
	if err != nil || len(breaches) > 0 {
		os.Exit(1)
	}
}

// check returns the breaches in the project in root.
func check(root string) (breaches []string, err error) {
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.LoadSyntax,
		Dir:  root,
	}, "./cmd/...", "./services/...", "./pkg/...")
	if err != nil {
		return nil, fmt.Errorf("loading the packages: %w", err)
	}
	if len(loaded) == 0 {
		return nil, fmt.Errorf("no packages in %s", root)
	}
	owners := map[string][]string{} // of each exported type name
	programLines := 0
	for _, p := range loaded {
		if len(p.Errors) > 0 {
			return nil, fmt.Errorf("loading %s: %w", p.PkgPath, p.Errors[0])
		}
		if strings.HasSuffix(p.PkgPath, "/cmd/f2mesh") || strings.Contains(p.PkgPath+"/", "/pkg/mesh/") {
			for _, circle := range circles(references(p)) {
				breaches = append(breaches, fmt.Sprintf("%s: references between these files run in a circle: %s", p.PkgPath, strings.Join(circle, ", ")))
			}
		}
		for _, file := range p.Syntax {
			name := filepath.Base(p.Fset.Position(file.Package).Filename)
			lines := p.Fset.File(file.Package).LineCount()
			if lines > maxFileLines && !ast.IsGenerated(file) {
				breaches = append(breaches, fmt.Sprintf("%s: %s has %d lines, more than %d", p.PkgPath, name, lines, maxFileLines))
			}
			if strings.HasSuffix(p.PkgPath, "/cmd/f2mesh") {
				programLines += lines
			}
			for _, spec := range exportedTypes(file) {
				owners[spec] = append(owners[spec], p.PkgPath)
			}
		}
	}
	if programLines >= maxProgramLines {
		breaches = append(breaches, fmt.Sprintf("cmd/f2mesh has %d lines, not fewer than %d", programLines, maxProgramLines))
	}
	for _, name := range slices.Sorted(maps.Keys(owners)) {
		slices.Sort(owners[name])
		if len(owners[name]) > 1 && !slices.Contains(sameMeaning, name) {
			breaches = append(breaches, fmt.Sprintf("the type name %s stands in %s", name, strings.Join(owners[name], ", ")))
		}
	}
	folders, err := filepath.Glob(filepath.Join(root, "pkg", "*"))
	if err != nil {
		return nil, fmt.Errorf("listing pkg: %w", err)
	}
	if len(folders) > maxFolders {
		breaches = append(breaches, fmt.Sprintf("pkg has %d folders, more than %d", len(folders), maxFolders))
	}
	return breaches, nil
}

// exportedTypes returns the names of a file's exported types.
func exportedTypes(file *ast.File) (names []string) {
	for _, declaration := range file.Decls {
		group, ok := declaration.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range group.Specs {
			if spec, ok := spec.(*ast.TypeSpec); ok && spec.Name.IsExported() {
				names = append(names, spec.Name.Name)
			}
		}
	}
	return names
}

// references returns which files of a package use names that another file of it declares.
func references(p *packages.Package) map[string][]string {
	uses := map[string]map[string]bool{}
	for identifier, object := range p.TypesInfo.Uses {
		if object.Pkg() != p.Types || !object.Pos().IsValid() {
			continue
		}
		from, to := filepath.Base(p.Fset.Position(identifier.Pos()).Filename), filepath.Base(p.Fset.Position(object.Pos()).Filename)
		if uses[from] == nil {
			uses[from] = map[string]bool{}
		}
		if from != to {
			uses[from][to] = true
		}
	}
	sorted := map[string][]string{}
	for from, to := range uses {
		sorted[from] = slices.Sorted(maps.Keys(to))
	}
	return sorted
}

// circles returns the groups of files of which each reaches all others: the strongly connected
// components with more than one member, by Tarjan's algorithm.
func circles(references map[string][]string) (found [][]string) {
	index, low, onStack := map[string]int{}, map[string]int{}, map[string]bool{}
	var stack []string
	var visit func(file string)
	visit = func(file string) {
		index[file] = len(index) + 1
		low[file] = index[file]
		stack, onStack[file] = append(stack, file), true
		for _, next := range references[file] {
			switch {
			case index[next] == 0:
				visit(next)
				low[file] = min(low[file], low[next])
			case onStack[next]:
				low[file] = min(low[file], index[next])
			}
		}
		if low[file] != index[file] {
			return
		}
		begin := slices.Index(stack, file)
		group := slices.Clone(stack[begin:])
		stack = stack[:begin]
		for _, member := range group {
			onStack[member] = false
		}
		if len(group) > 1 {
			slices.Sort(group)
			found = append(found, group)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(references)) {
		if index[file] == 0 {
			visit(file)
		}
	}
	return found
}
