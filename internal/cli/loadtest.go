package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"heartwheel/internal/doctor"
	"heartwheel/internal/settings"
	"heartwheel/internal/wording"
	"heartwheel/loadtest"
	"heartwheel/server"
)

// A verdict is the exit code of a load test that has said why already.
type verdict struct{ code int }

func (v *verdict) Error() string { return fmt.Sprintf("exit code %d", v.code) }

func newLoadtest(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "loadtest [tcp://HOST:PORT]",
		Short: "Load a server with connections that beat, and with peers that die",
		Long: `Connects to a server of frames with a length of 4 bytes, lets every connection
beat, makes some of them fail, and says what the server made of it: latencies,
dead peers noticed and how late, live ones killed. Without a target it starts
"heartwheel serve" as a process of its own and tests that.

A run connects, then holds all connections for --duration; the times of faults
count from there. Two latencies are shown: "` + loadtest.ResponseName + `" counts from
when a frame was due, "` + loadtest.ServiceName + `" from when it was sent. If the generator
itself was late, the run is invalid and shows neither.

-f takes a scenario: a YAML file with any of these flags, one "key: value" a
line, or one that is built in: ` + strings.Join(loadtest.ScenarioNames(), ", ") + `. A flag counts more.

Exits 0 after a pass, 1 if something failed, 2 for a plan that cannot work, 3
if a gate of --slo is broken, 4 if the generator was limited, 130 if it was
interrupted, with a report of what was measured until then.`,
		Example: `  heartwheel loadtest
  heartwheel loadtest tcp://127.0.0.1:9000 -c 15k --interval 5s -d 60s --fault silent:10%@20s --slo 'false_kills==0' --out run1
  heartwheel loadtest -f dead-wave`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("loadtest takes one target, but got %d: %q", len(args), args)
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	values := loadtestFlags(cmd)
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
		width := terminalWidth(progress)
		summary, err := loadtest.Run(loadtest.Options{
			Plan: plan, Settings: origins, Version: version(), Command: heartwheel,
			Stdout: cmd.OutOrStdout(), Progress: progress,
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
			return &verdict{summary.Verdict.ExitCode}
		}
		return nil
	}
	return cmd
}

// newLoadtestWorker is for newLoadtest to start, not for people.
func newLoadtestWorker() *cobra.Command {
	return &cobra.Command{
		Use:    loadtest.WorkerCommand,
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(syscall.SIGINT) // the run says when to stop
			if err := loadtest.Worker(cmd.InOrStdin(), cmd.OutOrStdout()); err != nil {
				return &settings.Failure{Err: err}
			}
			return nil
		},
	}
}

// loadtestFlags gives cmd a flag for every setting of a plan. The result
// returns, once the flags are parsed, the layers of what was given.
func loadtestFlags(cmd *cobra.Command) func(args []string) ([]loadtest.Layer, error) {
	fs := cmd.Flags()
	fs.SortFlags = false
	given := map[string]*planValue{}
	for _, k := range loadtest.Keys {
		if k.Name == "target" {
			continue // the argument
		}
		help := k.Help
		if len(k.Words) > 0 {
			help += "; " + wording.Choice(k.Words)
		}
		if k.Default == "" {
			help += " (default: " + k.Unset + ")"
		}
		v := &planValue{kind: k.Kind, def: k.Default}
		f := fs.VarPF(v, k.Name, k.Short, help)
		if k.Kind == "bool" {
			f.NoOptDefVal = "true"
		}
		complete := cobra.NoFileCompletions
		switch {
		case len(k.Words) > 0:
			complete = cobra.FixedCompletions(k.Words, cobra.ShellCompDirectiveNoFileComp)
		case k.Kind == "path":
			complete = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
		}
		if err := cmd.RegisterFlagCompletionFunc(k.Name, complete); err != nil {
			panic(err) // two settings with one name
		}
		given[k.Name] = v
	}
	scenario := fs.StringP("scenario", "f", "", "YAML `file` with any of these flags, or one of "+wording.Choice(loadtest.ScenarioNames()))
	cmd.SetFlagErrorFunc(nearestFlag)
	return func(args []string) ([]loadtest.Layer, error) {
		var layers []loadtest.Layer
		if *scenario != "" {
			l, err := loadtest.ReadScenario(*scenario)
			if err != nil {
				return nil, err
			}
			layers = append(layers, l)
		}
		flags := loadtest.Layer{From: "flag", Values: map[string][]string{}}
		for name, v := range given {
			if fs.Changed(name) {
				flags.Values[name] = v.texts
			}
		}
		if len(args) == 1 {
			flags.Values["target"] = args
		}
		return append(layers, flags), nil
	}
}

// A planValue keeps what was written, so that everything that is wrong can be
// reported at once later.
type planValue struct {
	kind, def string
	texts     []string
}

func (v *planValue) Set(text string) error { v.texts = append(v.texts, text); return nil }
func (v *planValue) String() string        { return v.def }
func (v *planValue) Type() string          { return v.kind }

// planError is err as wrong usage, if that is what it is about.
func planError(err error) error {
	var plan *loadtest.PlanError
	if errors.As(err, &plan) {
		return &settings.UsageError{Lines: plan.Lines, Help: "heartwheel loadtest"}
	}
	return err
}

// checkHost refuses a plan that this machine cannot carry out, and says what
// mends it.
func checkHost(p *loadtest.Plan) error {
	plan := doctor.Plan{
		Connections: p.Connections, Role: doctor.Client, Processes: p.Processes, Sources: p.Sources,
		Target: strings.TrimPrefix(p.Target, "tcp://"), ConnectRate: int(max(1, p.ConnectRate.From, p.ConnectRate.To)),
	}
	if p.Target == "" {
		plan.Role, plan.ServerProcesses = doctor.Both, serveProcesses(p.Serve, p.Connections)
	}
	if report := doctor.Check(nil, plan); !report.OK() {
		return &loadtest.PlanError{Lines: report.Problems()}
	}
	return nil
}

// serveProcesses is how many processes serve with these flags of serve. What is
// wrong with them serve itself says.
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
		if text == settings.ByKey("workers").MinusOne {
			descriptors, _ := server.RaiseDescriptorLimit()
			return settings.WorkersFor(connections, descriptors)
		}
		if n, err := settings.ParseInt(text, settings.NumberKind); err == nil {
			return max(n, 1)
		}
	}
	return 1
}

// heartwheel is the command line of this very program with the arguments.
func heartwheel(args ...string) *exec.Cmd {
	path, err := os.Executable()
	if err != nil {
		path = os.Args[0]
	}
	cmd := exec.Command(path, args...)
	cmd.Args[0] = "heartwheel"
	return cmd
}

// terminalWidth is the number of characters in a line of w; 0 if w is not a
// terminal.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if size.Col == 0 { // a terminal that does not say
		return 80
	}
	return int(size.Col)
}

// noColor says whether the variable asks for no colours: https://no-color.org.
func noColor(variable string) bool {
	value, ok := strings.CutPrefix(variable, "NO_COLOR=")
	return ok && value != ""
}
