package cli

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"heartwheel/internal/config"
	"heartwheel/internal/daemon"
	"heartwheel/internal/handover"
	"heartwheel/internal/logging"
	"heartwheel/internal/settings"
	"heartwheel/internal/supervisor"
)

func newServe(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the heartbeat server",
		Long: `Runs the heartbeat server. SIGTERM or SIGINT drains it, after which it exits 0;
a second signal exits at once with 1. SIGHUP reads the configuration file again
and puts the settings marked [reload] in force, mostly for new connections; no
connection is closed, and a wrong file changes nothing. SIGUSR2 replaces the
server without refusing a connection: a new process is started from the file now
at the server's path, with the same arguments. If it does not become ready, the
old process continues.

With --workers this process is a supervisor: it starts that many workers with
listening sockets of their own, restarts workers that end, and answers on --ops
for all of them. SIGTERM drains all workers, SIGHUP reloads them all, SIGUSR2
replaces them, a few at a time.

Each setting is taken from the first of these that has it: the flag, the
environment, the file of --config, the profile. --max-frame is the variable
HEARTWHEEL_MAX_FRAME, with commas between the elements of a list, and the line
"max-frame: 64KiB" in the file. Durations need a unit: 15s, 500ms, 2m. Sizes
are in bytes or have a unit: 65536, 64KiB, 1MiB, 2GiB. Numbers may end in k or
m: 20k. Addresses with settings of their own are a list in the file: listeners.
"heartwheel config show" prints the result.`,
		Example: `  heartwheel serve
  heartwheel serve --listen tcp://0.0.0.0:9000 --max-connections 500k
  heartwheel serve --profile iot --max-connections 1m --workers auto
  HEARTWHEEL_DRAIN=2m heartwheel serve --config heartwheel.yaml`,
		Args: noArgs,
	}
	flags := addSettings(cmd, settings.Table)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		in, err := handover.Inherit(environ)
		if err != nil {
			return &settings.Failure{Err: err}
		}
		layers := []config.Layer{settings.EnvLayer(environ), flags()}
		read := func() *settings.File { return settings.ReadFile(layers...) }
		resolve := func(f *settings.File) (*settings.Resolved, error) { return settings.ResolveFile(f, layers...) }
		file := in.Settings
		if file == nil {
			file = read()
		}
		r, err := resolve(file)
		if err != nil {
			in.Close()
			return err
		}
		if !in.FromParent() {
			if in, err = handover.Activated(environ, r.ListenSockets(), r.Ops); err != nil {
				return &settings.Failure{Err: err}
			}
		}
		if handover.Lookup(environ, "GOGC") == "" {
			debug.SetGCPercent(daemon.GCPercent)
		}
		signal.Ignore(syscall.SIGPIPE) // a broken log must not end the connections
		out := logging.NewWriter(cmd.ErrOrStderr(), 0)
		defer out.Close(flushTimeout)
		handler := logging.NewHandler(out)
		setLog := func(r *settings.Resolved) { handler.Set(r.LogFormat, r.LogLevel) }
		setLog(r)
		log := slog.New(handler)
		out.ReportDropped(func(n uint64) []byte {
			var line bytes.Buffer
			slog.New(handler.To(&line)).
				Error("log lines were dropped: standard error was blocked or broken", "lines", n)
			return line.Bytes()
		})
		metrics := []prometheus.Collector{out.Collector()}
		if in.Control != nil { // signals are for the supervisor
			signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR2)
			return daemon.RunWorker(r, log, in, daemon.Process{Resolve: resolve, SetLog: setLog, Metrics: metrics})
		}
		program, err := handover.ThisProgram(os.Args, environ, os.Stderr, out)
		if err != nil {
			return &settings.Failure{Err: err}
		}
		notifier := handover.NewNotifier(environ, log)
		defer notifier.Close(flushTimeout)
		signals, reloads, handovers := make(chan os.Signal, 2), make(chan os.Signal, 1), make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		defer func() {
			signal.Stop(signals)
			close(signals)
		}()
		if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it, to survive the end of a terminal
			signal.Notify(reloads, syscall.SIGHUP)
			defer signal.Stop(reloads)
		}
		signal.Notify(handovers, syscall.SIGUSR2)
		defer signal.Stop(handovers)
		if r.Workers == 0 {
			return daemon.Run(r, log, in, daemon.Process{
				Program: program, Notifier: notifier, Signals: withoutRepeats(signals), Reloads: reloads,
				Handovers: handovers, Read: read, Resolve: resolve, SetLog: setLog, Metrics: metrics,
			})
		}
		if in.FromParent() {
			in.Close()
			return &settings.Failure{Err: errors.New("a hand-over cannot add workers: restart the server")}
		}
		if len(in.Addresses()) > 0 {
			in.Close()
			return &settings.Failure{Err: errors.New("workers need a listening socket each and cannot share those of " +
				"LISTEN_FDS: leave out --workers, or the socket unit")}
		}
		return supervisor.Run(r, log, supervisor.Options{
			Program: program, Notifier: notifier, Signals: withoutRepeats(signals), Reloads: reloads,
			Handovers: handovers, File: file, Read: read, Resolve: resolve, SetLog: setLog, Metrics: metrics,
		})
	}
	return cmd
}

// flushTimeout is how long a process that exits waits for its log and its service
// manager.
const flushTimeout = 500 * time.Millisecond
