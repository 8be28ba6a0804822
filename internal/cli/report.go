package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"heartwheel/internal/settings"
	"heartwheel/loadtest/report"
)

func newReport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Show or compare the results of load tests",
		Args:  noCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newReportCompare(), newReportShow(), newReportHTML())
	return cmd
}

func newReportCompare() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Compare two runs, with ratios",
		Long: `Prints the figures of two runs side by side, with the ratio B÷A, after the
differences of their plans and environments. A and B are directories written by
"heartwheel loadtest --out", or the summary.json in one.

It does not tell differences from noise: two runs are not enough for that.

With --json the result is one object: schema ("` + report.CompareSchema + `"); a
and b with path, verdict and started; warnings; plan and environment, a list of
name, a and b for each difference; figures, each with name, unit (us, ms, bytes,
percent, per_s, or empty for a count), a, b and ratio, which are null if a run
does not have them.

Exits 0 after a comparison, 1 if a run cannot be read, 64 for wrong usage.`,
		Example: `  heartwheel report compare run1 run2
  heartwheel report compare --json old/summary.json new/summary.json`,
		Args: exactly(2, "two runs"),
	}
	asJSON := cmd.Flags().Bool("json", false, "write the comparison as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var runs [2]*report.Summary
		for i, path := range args {
			var err error
			if runs[i], err = report.ReadSummary(path); err != nil {
				return &settings.Failure{Err: err}
			}
		}
		c := report.Compare(runs[0], runs[1], args[0], args[1])
		var err error
		if *asJSON {
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			enc.SetEscapeHTML(false)
			err = enc.Encode(c)
		} else {
			_, err = io.WriteString(cmd.OutOrStdout(), c.Text())
		}
		if err != nil {
			return &settings.Failure{Err: err}
		}
		return nil
	}
	return cmd
}

func newReportShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show DIR",
		Short: "Print the short report of a run again",
		Long: `Prints the report of a run. DIR is a directory written by "heartwheel loadtest
--out", or the summary.json in one. Exits 0 whatever the result of the run, 1 if
it cannot be read, 64 for wrong usage.`,
		Example: "  heartwheel report show run1",
		Args:    exactly(1, "one run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := report.ReadSummary(args[0])
			if err == nil {
				_, err = io.WriteString(cmd.OutOrStdout(), s.Text())
			}
			if err != nil {
				return &settings.Failure{Err: err}
			}
			return nil
		},
	}
}

func newReportHTML() *cobra.Command {
	return &cobra.Command{
		Use:   "html DIR",
		Short: "Write report.html of a run again",
		Long: `Writes report.html in DIR from the other files there. DIR is a directory written
by "heartwheel loadtest --out". Exits 0 if it was written, 1 if not, 64 for
wrong usage.`,
		Example: "  heartwheel report html run1",
		Args:    exactly(1, "one directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := report.RewriteHTML(args[0])
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "written to %s\n", path)
			}
			if err != nil {
				return &settings.Failure{Err: err}
			}
			return nil
		},
	}
}

// exactly accepts n arguments. what names them for the error.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%s takes %s, but got %d", cmd.Name(), what, len(args))
		}
		return nil
	}
}
