package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"heartwheel/internal/address"
	"heartwheel/internal/admission"
	"heartwheel/internal/config"
	"heartwheel/internal/doctor"
	"heartwheel/internal/settings"
	"heartwheel/internal/wording"
	"heartwheel/loadtest"
	"heartwheel/loadtest/engine"
	"heartwheel/loadtest/report"
)

func newLoadtest(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "loadtest [SCHEME://HOST:PORT[/PATH]]",
		Short: "Load a server with live connections and peers that die",
		Long: `Connects to a server, sends heartbeats on every connection, makes some of them
fail, and reports latencies, the dead peers that the server detected and how
late, and the live ones that it killed. Without a target it starts "heartwheel
serve" and tests that; without a target and any flag of a plan it runs the
scenario quick.

The target is a server of length-prefixed frames (4 bytes) with tcp:// or
tls://, a WebSocket server with ws:// or wss://, or one of other frames, see
Framing. A WebSocket server has to answer pings, and in mode echo messages.
Beyond tcp, the report has the times of the TCP connect, the TLS handshake and
the WebSocket upgrade one by one.

A run connects, then holds all connections for --duration; fault times are
relative to the start of that. It reports two latencies:
"` + report.ResponseName + `" is measured from the time a frame was due,
"` + report.ServiceName + `" from the time it was sent. If the generator itself was
late, it shows neither. The run is then invalid, unless what the server did is
wrong however late the generator was: live peers closed, dead ones not detected,
wrong answers, broken gates of --slo on such counts.

-f takes a scenario: a YAML file with a line "key: value" for any of these
flags, or a built-in one:
` + strings.Join(loadtest.ScenarioNames(), ", ") + `. Flags override it.

Exits 0 if the run passed, 1 if it failed or its report cannot be written, 64
for a plan that cannot work, 3 if a gate of --slo was missed, 4 if only the
generator was too slow, 130 if it was interrupted; the report then covers the
time until that.`,
		Example: `  heartwheel loadtest
  heartwheel loadtest tcp://127.0.0.1:9000 -c 15k -d 2m --fault silent:10%@20s
  heartwheel loadtest -f dead-wave --slo 'false_kills==0' --out run1
  heartwheel loadtest wss://gw.example.com/live --header 'Origin: https://a.com'
  heartwheel loadtest tcp://10.0.0.7:7000 --framing lines --beat-message PING \
    --answer-message PONG`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("loadtest takes one target, but got %d: %q", len(args), args)
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	values := loadtestFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "write summary.json to standard output in place of the report")
	quiet := cmd.Flags().BoolP("quiet", "q", false, "show no progress")
	force := cmd.Flags().Bool("force", false, "overwrite the results of another run in --out")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		layers, err := values(args)
		if err != nil {
			return planError(err)
		}
		plan, origins, err := loadtest.Build(layers...)
		if err != nil {
			return planError(err)
		}
		if err := checkHost(plan); err != nil {
			return planError(err)
		}
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		defer signal.Stop(signals)
		progress := cmd.ErrOrStderr()
		_, width := terminalSize(progress)
		summary, err := loadtest.Run(loadtest.Options{
			Plan: plan, Settings: origins, Version: version(), Command: heartwheel,
			Stdout: cmd.OutOrStdout(), Progress: progress,
			JSON: *asJSON, Quiet: *quiet, Force: *force,
			Terminal: width > 0, Width: width, Color: width > 0 && !slices.ContainsFunc(environ, noColor),
			Signals: signals,
		})
		var plans *loadtest.PlanError
		switch {
		case errors.As(err, &plans):
			return planError(err)
		case err != nil:
			return &settings.Failure{Err: err}
		case summary.Verdict.ExitCode != exitOK:
			return &exitError{summary.Verdict.ExitCode}
		}
		return nil
	}
	return cmd
}

// newLoadtestWorker is the command that a load test starts its processes with.
func newLoadtestWorker() *cobra.Command {
	return &cobra.Command{
		Use:    engine.WorkerCommand,
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(syscall.SIGINT) // its parent stops it
			if err := engine.Worker(cmd.InOrStdin(), cmd.OutOrStdout()); err != nil {
				return &settings.Failure{Err: err}
			}
			return nil
		},
	}
}

// loadtestFlags gives cmd a flag for every setting of a plan. The result
// returns, once the flags are parsed, the layers of what was given.
func loadtestFlags(cmd *cobra.Command) func(args []string) ([]config.Layer, error) {
	flags := addSettings(cmd, loadtest.Table, "target")
	scenario := cmd.Flags().StringP("scenario", "f", "",
		"YAML `file` with any of these settings, or one of "+wording.Choice(loadtest.ScenarioNames()))
	return func(args []string) ([]config.Layer, error) {
		var layers []config.Layer
		plain := len(args) == 0
		cmd.Flags().Visit(func(f *pflag.Flag) {
			plain = plain && slices.Contains([]string{"json", "quiet", "force"}, f.Name)
		})
		if plain {
			*scenario = "quick"
		}
		if *scenario != "" {
			l, err := loadtest.ReadScenario(*scenario)
			if err != nil {
				return nil, err
			}
			layers = append(layers, l)
		}
		layers = append(layers, flags())
		if len(args) == 1 {
			layers = append(layers, config.Argument("target", args[0]))
		}
		return layers, nil
	}
}

// planError turns a *loadtest.PlanError into wrong usage.
func planError(err error) error {
	var plan *loadtest.PlanError
	if errors.As(err, &plan) {
		return &settings.UsageError{Lines: plan.Lines, Help: "heartwheel loadtest"}
	}
	return err
}

// checkHost returns an error with fixes if this machine cannot carry the plan.
func checkHost(p *loadtest.Plan) error {
	plan := doctor.Plan{
		Connections: p.Connections, Role: doctor.Client, Processes: p.Processes, Sources: p.Sources,
		ConnectRate: int(max(1, p.ConnectRate.From, p.ConnectRate.To)),
	}
	if target, err := address.Parse(p.Target, loadtest.Schemes...); err == nil {
		plan.Target = target.HostPort()
	}
	if p.Target == "" {
		plan.Role, plan.ServerProcesses = doctor.Both, serveProcesses(p.Serve, p.Connections)
	}
	if report := doctor.Check(nil, plan); !report.OK() {
		return &loadtest.PlanError{Lines: report.Problems()}
	}
	return nil
}

// serveProcesses returns the number of server processes for these flags of serve,
// which serve itself checks.
func serveProcesses(flags string, connections int) int {
	fields := strings.Fields(flags)
	for i, field := range fields {
		text, given := strings.CutPrefix(field, "--workers=")
		if field == "--workers" && i+1 < len(fields) {
			text, given = fields[i+1], true
		}
		if !given {
			continue
		}
		if text == settings.Table.ByKey("workers").MinusOne {
			descriptors, _ := admission.RaiseDescriptorLimit()
			return settings.WorkersFor(connections, descriptors)
		}
		if n, err := config.ParseNumber(text); err == nil {
			return max(n, 1)
		}
	}
	return 1
}

// heartwheel returns a command that runs this program with the arguments.
func heartwheel(args ...string) *exec.Cmd {
	path, err := os.Executable()
	if err != nil {
		path = os.Args[0]
	}
	cmd := exec.Command(path, args...)
	cmd.Args[0] = "heartwheel"
	return cmd
}
