package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"heartwheel/internal/config"
	"heartwheel/internal/wording"
)

// A flagValue keeps what was written for a flag, so that everything that is wrong
// can be reported at once later.
type flagValue struct {
	kind, byDefault string
	texts           []string
}

func (v *flagValue) Set(text string) error { v.texts = append(v.texts, text); return nil }
func (v *flagValue) Type() string          { return v.kind }

// String returns the value that counts: the last one written, or the default.
func (v *flagValue) String() string {
	if len(v.texts) == 0 {
		return v.byDefault
	}
	return v.texts[len(v.texts)-1]
}

var yamlFiles = []string{"yaml", "yml"}

// addSettings gives cmd a flag for every setting of the table, but for those in
// without. The result returns, once the flags are parsed, their layer.
func addSettings[T any](cmd *cobra.Command, table config.Table[T], without ...string) func() config.Layer {
	fs := cmd.Flags()
	fs.SortFlags = false
	values := map[string]*flagValue{}
	for _, s := range table {
		if slices.Contains(without, s.Key) {
			continue
		}
		help := s.Help
		if len(s.Words) > 1 {
			help += "; " + wording.Choice(s.Words)
		}
		if s.Default == "" && s.Unset != "none" {
			help += " (default: " + s.Unset + ")"
		}
		if s.Live != "" {
			help += " [reload]"
		}
		v := &flagValue{kind: string(s.Kind), byDefault: s.Default}
		values[s.Key] = v
		f := fs.VarPF(v, s.Key, s.Short, help)
		f.Annotations = map[string][]string{groupAnnotation: {s.Group}}
		complete := cobra.NoFileCompletions
		switch {
		case len(s.Words) > 0:
			complete = cobra.FixedCompletions(s.Words, cobra.ShellCompDirectiveNoFileComp)
		case s.Kind == config.Bool:
			f.NoOptDefVal = "true"
			complete = cobra.FixedCompletions([]string{"true", "false"}, cobra.ShellCompDirectiveNoFileComp)
		case s.NotInFile: // the file itself
			complete = cobra.FixedCompletions(yamlFiles, cobra.ShellCompDirectiveFilterFileExt)
		case s.Kind == config.Path:
			complete = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
		}
		if err := cmd.RegisterFlagCompletionFunc(s.Key, complete); err != nil {
			panic(err) // two settings with one key
		}
	}
	return func() config.Layer {
		texts := map[string][]string{}
		for _, s := range table {
			v := values[s.Key]
			switch {
			case v == nil || len(v.texts) == 0:
			case s.IsList():
				texts[s.Key] = v.texts
			default:
				texts[s.Key] = []string{v.String()}
			}
		}
		return table.Flags(texts)
	}
}

// flagError suggests a flag of cmd for an unknown one.
func flagError(cmd *cobra.Command, err error) error {
	name, ok := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !ok {
		return err
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return fmt.Errorf("--%s is not a flag of %s; %s", name, cmd.CommandPath(),
		wording.Suggestion(name, names, func(name string) string { return "--" + name }))
}

// groupAnnotation is the annotation of a flag that holds its heading in the help.
const groupAnnotation = "heartwheel_group"

// helpWidth is the length of the longest line of a help, in characters.
const helpWidth = 80

// groupFlags makes the help of root and its commands show flags in groups, in
// lines of at most helpWidth.
func groupFlags(root *cobra.Command) {
	cobra.AddTemplateFunc("flagHelp", flagHelp)
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(),
		"Flags:\n{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}",
		"{{flagHelp .LocalFlags | trimTrailingWhitespaces}}", 1))
}

func flagHelp(fs *pflag.FlagSet) string {
	var (
		groups = map[string][]*pflag.Flag{}
		order  []string
		width  int
	)
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		group := config.Other
		if g := f.Annotations[groupAnnotation]; len(g) > 0 {
			group = g[0]
		}
		if groups[group] == nil {
			order = append(order, group)
		}
		groups[group] = append(groups[group], f)
		width = max(width, len(flagForm(f)))
	})
	if len(order) == 1 {
		return "Flags:\n" + flagLines(groups[order[0]], width)
	}
	var b strings.Builder
	slices.SortStableFunc(order, func(a, b string) int { // Other comes last
		return cmp.Compare(strings.Index(a, config.Other), strings.Index(b, config.Other))
	})
	for _, group := range order {
		fmt.Fprintf(&b, "%s:\n%s\n", group, flagLines(groups[group], width))
	}
	return b.String()
}

// flagForm returns a flag as it is written: -c, --connections number.
func flagForm(f *pflag.Flag) string {
	placeholder, _ := pflag.UnquoteUsage(f)
	form := "    --" + f.Name
	if f.Shorthand != "" {
		form = "-" + f.Shorthand + ", --" + f.Name
	}
	if placeholder != "" && f.NoOptDefVal == "" {
		form += " " + placeholder
	}
	return form
}

// flagLines returns the help of flags, their forms in a column of this width.
func flagLines(flags []*pflag.Flag, width int) string {
	var b strings.Builder
	for _, f := range flags {
		_, usage := pflag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(&b, "  %-*s", width, flagForm(f))
		for i, line := range wrap(usage, helpWidth-width-4) {
			if i > 0 {
				fmt.Fprintf(&b, "%*s", width+2, "")
			}
			b.WriteString("  " + line + "\n")
		}
	}
	return b.String()
}

// wrap breaks text at spaces into lines of at most width characters.
func wrap(text string, width int) []string {
	var lines []string
	line, length := "", 0
	for word := range strings.FieldsSeq(text) {
		n := len([]rune(word))
		if line != "" && length+1+n > width {
			lines = append(lines, line)
			line, length = "", 0
		}
		if line != "" {
			line, length = line+" ", length+1
		}
		line, length = line+word, length+n
	}
	return append(lines, line)
}
