// Package cli is the command heartwheel. Each subcommand has a file of its own.
// It may import any package of this module.
package cli

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"heartwheel/internal/settings"
	"heartwheel/internal/wording"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1  // an error at run time
	exitUsage  = 64 // wrong usage or settings; nothing was started (EX_USAGE). 2 is a crash: Go exits with it
)

// An exitError makes Run return its code. What went wrong has been written.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// Run runs the command with the arguments args, without the program's name, and
// the environment environ. It returns the exit code.
func Run(args, environ []string, stdout, stderr io.Writer) int {
	root := newRoot(environ)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	var (
		usage  *settings.UsageError
		failed *settings.Failure
		exit   *exitError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &failed):
		if !failed.Logged {
			fmt.Fprintf(stderr, "heartwheel: %s\n", failed.Err)
		}
		return exitFailed
	case !errors.As(err, &usage): // cobra's own errors are all about usage
		usage = &settings.UsageError{Lines: []string{err.Error()}, Help: cmd.CommandPath()}
	}
	for _, line := range usage.Lines {
		fmt.Fprintf(stderr, "heartwheel: %s\n", line)
	}
	fmt.Fprintf(stderr, "run %s --help\n", usage.Help)
	return exitUsage
}

func newRoot(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "heartwheel",
		Short: "Keep many TCP connections alive and detect dead peers",
		Long: `Heartwheel keeps many TCP connections alive and detects dead peers within a
stated bound.`,
		Example: `  heartwheel serve
  heartwheel serve --profile fast --listen tcp://0.0.0.0:9000
  heartwheel config show --profile iot`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("heartwheel {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	groupFlags(root)
	root.SetHelpCommand(newHelp())
	cobra.EnableCommandSorting = false // help lists them in this order
	root.AddCommand(newServe(environ), newConfig(environ), newPing(environ), newConnect(environ),
		newLoadtest(environ), newLoadtestWorker(), newReport(), newDoctor(), newToken())
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" { // cobra's prints its help and exits 0 for an unknown shell
			cmd.Args = noCommand
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	return root
}

// newHelp returns cobra's help command, except that an unknown topic is an error.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return noCommand(topic, rest)
			}
			topic.InitDefaultHelpFlag()
			topic.InitDefaultVersionFlag()
			return topic.Help()
		},
	}
}

// noCommand rejects arguments of a command that only groups others.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if len(names) == 0 {
		return noArgs(cmd, args)
	}
	return &settings.UsageError{Help: cmd.CommandPath(), Lines: []string{fmt.Sprintf(
		"%q is not a command of %s; %s", args[0], cmd.CommandPath(), wording.Suggestion(args[0], names, nil))}}
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("%s takes no arguments, but got %q", cmd.Name(), args[0])
}

// version describes the build: module version and revision, Go, platform, gnet.
func version() string {
	text, gnet := "(unknown)", "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			text = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				text += " " + s.Value
			}
		}
		for _, dep := range info.Deps {
			if dep.Path == "github.com/panjf2000/gnet/v2" {
				gnet = dep.Version
			}
		}
	}
	return fmt.Sprintf("%s, %s %s/%s, gnet %s", text, runtime.Version(), runtime.GOOS, runtime.GOARCH, gnet)
}
