package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"heartwheel/internal/settings"
)

func newConfig(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check a configuration file, or show the settings in force",
		Args:  noCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheck(), newConfigShow(environ))
	return cmd
}

func newConfigCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file",
		Long: `Reports every mistake in a YAML configuration file. The environment is not
considered. Exits 0 if the file is valid, else 64.`,
		Example: "  heartwheel config check heartwheel.yaml",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("check takes one file, but got %d", len(args))
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return yamlFiles, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := settings.Resolve(settings.ArgumentLayer(args[0]))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, %d settings\n", args[0], r.Written())
			return err
		},
	}
}

func newConfigShow(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [flags of serve]",
		Short: "Show the value and the origin of each setting",
		Long: `Shows the settings that serve would use if it were started here with the same
flags: the value of each, and where it comes from. Starts nothing.`,
		Example: "  heartwheel config show --profile fast --config heartwheel.yaml",
		Args:    noArgs,
	}
	flags := addSettings(cmd, settings.Table)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := settings.Resolve(settings.EnvLayer(environ), flags())
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
		fmt.Fprintf(w, "SETTING\tVALUE\tFROM\n")
		for _, s := range r.ShowAll() {
			fmt.Fprintf(w, "%s\t%s\t%s\n", s.Key, s.Value, s.From)
		}
		return w.Flush()
	}
	return cmd
}
