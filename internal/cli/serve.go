package cli

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"heartwheel/internal/daemon"
	"heartwheel/internal/handover"
	"heartwheel/internal/settings"
	"heartwheel/internal/supervisor"
	"heartwheel/internal/wording"
)

func newServe(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the heartbeat server",
		Long: `Runs the heartbeat server until SIGTERM or SIGINT, then drains and exits 0.
A second signal ends it at once, with exit 1. SIGHUP replaces it by a new
process of the binary that is then at its path, with the same arguments and the
configuration file as it is then: no client is refused meanwhile, and a new
process that does not get ready changes nothing.

With --workers this process serves nobody itself: it starts so many that do,
gives each a socket of its own for every address of --listen, starts again what
has ended, and answers on --ops for all. SIGTERM drains all of them; SIGHUP
replaces them, some at a time.

Every flag can be set by the environment, --max-frame as HEARTWHEEL_MAX_FRAME,
lists separated by commas, and in the file of --config, as a line "max-frame:
64KiB". A flag counts more than the environment, which counts more than the
file, which counts more than the profile. A duration needs a unit: 15s, 500ms,
2m. A size is in bytes or has one: 65536, 64KiB, 1MiB, 2GiB. A number may end in k or
m: 20k. "heartwheel config show" shows what it all comes to.`,
		Example: `  heartwheel serve
  heartwheel serve --profile fast --listen tcp://0.0.0.0:9000 --max-connections 500k
  heartwheel serve --profile iot --max-connections 1m --workers auto
  HEARTWHEEL_DRAIN=2m heartwheel serve --config heartwheel.yaml`,
		Args: noArgs,
	}
	flags := addFlags(cmd)
	resolve := func() (*settings.Resolved, error) { return settings.Resolve(settings.EnvLayer(environ), flags()) }
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := resolve()
		if err != nil {
			return err
		}
		in, err := handover.Inherit(environ)
		if err != nil {
			return &settings.Failure{Err: err}
		}
		if handover.Lookup(environ, "GOGC") == "" {
			debug.SetGCPercent(daemon.GCPercent)
		}
		signal.Ignore(syscall.SIGPIPE) // a broken log must not end the connections
		log := newLogger(cmd.ErrOrStderr(), r.LogFormat, r.LogLevel)
		if in.Control != nil { // signals are for the supervisor
			signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			return daemon.RunWorker(r, log, in)
		}
		program, err := handover.ThisProgram(os.Args, environ, os.Stderr)
		if err != nil {
			return &settings.Failure{Err: err}
		}
		manager := handover.ManagerOf(environ)
		signals, hangups := make(chan os.Signal, 2), make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		defer signal.Stop(signals)
		if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it, to survive the end of a terminal
			signal.Notify(hangups, syscall.SIGHUP)
			defer signal.Stop(hangups)
		}
		if r.Workers == 0 {
			return daemon.Run(r, log, in, daemon.Process{Program: program, Manager: manager, Signals: signals, Hangups: hangups})
		}
		if in.FromParent() {
			in.Close()
			return &settings.Failure{Err: errors.New("workers cannot begin by a hand-over: restart the server")}
		}
		return supervisor.Run(r, log, supervisor.Options{Program: program, Manager: manager, Signals: signals, Hangups: hangups, Resolve: resolve})
	}
	return cmd
}

var yamlFiles = []string{"yaml", "yml"}

// addFlags gives cmd a flag for every setting. The result returns, once the
// flags are parsed, the layer of those that were given.
func addFlags(cmd *cobra.Command) func() settings.Layer {
	fs := cmd.Flags()
	fs.SortFlags = false
	for _, s := range settings.Table {
		help := s.Help
		if s.Kind == settings.WordKind {
			help += "; " + wording.Choice(s.Words)
		}
		if s.Default == "" {
			help += " (default: " + s.Unset + ")"
		}
		f := fs.VarPF(&flagValue{Setting: s}, s.Key, "", strings.ReplaceAll(help, "`", `"`))
		if s.Kind == settings.BoolKind {
			f.NoOptDefVal = "true"
		}
		complete := cobra.NoFileCompletions
		switch s.Kind {
		case settings.WordKind:
			complete = cobra.FixedCompletions(s.Words, cobra.ShellCompDirectiveNoFileComp)
		case settings.BoolKind:
			complete = cobra.FixedCompletions([]string{"true", "false"}, cobra.ShellCompDirectiveNoFileComp)
		case settings.PathKind:
			complete = cobra.FixedCompletions(yamlFiles, cobra.ShellCompDirectiveFilterFileExt)
		}
		if err := cmd.RegisterFlagCompletionFunc(s.Key, complete); err != nil {
			panic(err) // two settings with one key
		}
	}
	return func() settings.Layer {
		values := map[string]any{}
		for _, s := range settings.Table {
			if !fs.Changed(s.Key) {
				continue
			}
			texts := fs.Lookup(s.Key).Value.(*flagValue).texts
			if s.Kind == settings.ListKind {
				values[s.Key] = texts
			} else {
				values[s.Key] = texts[len(texts)-1]
			}
		}
		return settings.FlagLayer(values)
	}
}

// A flagValue keeps what was written, so that everything that is wrong can be
// reported at once later.
type flagValue struct {
	*settings.Setting
	texts []string
}

func (v *flagValue) Set(text string) error { v.texts = append(v.texts, text); return nil }
func (v *flagValue) String() string {
	if v.Setting == nil { // the zero value that the help compares with
		return ""
	}
	return v.Default
}
func (v *flagValue) Type() string { return string(v.Kind) }

func newLogger(w io.Writer, format, level string) *slog.Logger {
	var l slog.Level
	// The words of log-level are names of levels.
	_ = l.UnmarshalText([]byte(level))
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l}))
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l}))
}
