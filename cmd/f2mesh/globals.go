package main

import (
	"io"
	"log/slog"
	"os"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

// globals are the flags of every command.
type globals struct {
	StateDir  string `help:"Directory for all data of the mesh." env:"F2MESH_STATE_DIR" default:".f2mesh" type:"path"`
	LogLevel  string `help:"Minimum log level (${enum})." env:"F2MESH_LOG_LEVEL" default:"info" enum:"debug,info,warn,error"`
	LogFormat string `help:"Log format (${enum}). auto: text on a terminal." env:"F2MESH_LOG_FORMAT" default:"auto" enum:"auto,text,json"`

	CheckConfig bool `help:"Only check the command line and the environment."`
}

// state is the mesh's directory. Commands without flags for Vault take it as the
// environment names it.
func (g *globals) state() mesh.State { return mesh.State{Dir: g.StateDir, Vault: vaultFromEnvironment} }

func vaultFromEnvironment() (f mesh.VaultFlags, err error) {
	parser, err := kong.New(&f, kong.Vars{"vault_prefix": vault.Prefix})
	if err != nil {
		return f, err
	}
	_, err = parser.Parse(nil)
	return f, err
}

func (g *globals) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(g.LogLevel)) // the flag's enum holds only levels
	options := &slog.HandlerOptions{Level: level}
	if g.LogFormat == "json" || g.LogFormat == "auto" && !term.IsTerminal(int(os.Stderr.Fd())) {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// version is stamped by the build.
var version = "0.0.0-dev"
