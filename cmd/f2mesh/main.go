// Command f2mesh moves the messages of F2 Smart Controllers from MQTT through
// NATS JetStream into TimescaleDB. Each subcommand is one running part, or one
// look at a running mesh; `f2mesh up` runs all parts on one machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/mesh/soak"
	operate "github.com/f2mesh/f2mesh/pkg/operate/command"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run parses the arguments, runs the command and answers the exit code.
func run(ctx context.Context, args []string) int {
	var cli commands
	parser := newParser(ctx, &cli)
	parsed, err := parser.Parse(args)
	parser.FatalIfErrorf(err)
	if cli.CheckConfig {
		return 0
	}
	log := cli.logger(os.Stderr)
	if err := parsed.Run(&cli.globals, cli.state(), log); err != nil {
		fmt.Fprintf(os.Stderr, "f2mesh: %s\n", plain.Lines(err.Error())) // a server's words may be in it
		if failure, ok := errors.AsType[*operate.FailureError](err); ok {
			return failure.Code
		}
		return 1
	}
	return 0
}

// newParser is the parser of the command line.
func newParser(ctx context.Context, cli *commands, options ...kong.Option) *kong.Kong {
	return kong.Must(cli, append(options,
		kong.Name("f2mesh"),
		kong.Description("An event mesh for F2 Smart Controllers: MQTT over mTLS, NATS JetStream, TimescaleDB."),
		kong.ShortUsageOnError(),
		durations(),
		kong.PostBuild(hideSetByUp),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(service.Release(version), soak.Hooks{Registry: migrateRegistry, Admit: admitDemo}),
		kong.Vars{"version": version, "vault_prefix": vault.Prefix},
	)...)
}

// durations has every flag that takes a duration take days and weeks.
func durations() kong.Option {
	return kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
			return err
		}
		d, err := plain.ParseDuration(text)
		if err != nil {
			return err
		}
		target.SetInt(int64(d))
		return nil
	}))
}
