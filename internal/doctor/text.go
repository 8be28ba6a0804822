package doctor

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"heartwheel/internal/wording"
)

// fix sets the fixes of f, without empty ones, if it is Wrong.
func (f *Finding) fix(ways ...string) {
	f.Fix = nil
	if f.Status != Wrong {
		return
	}
	for _, w := range ways {
		if w != "" {
			f.Fix = append(f.Fix, w)
		}
	}
}

// comment begins a shell comment.
const comment = "   # "

// command returns a line to copy, with a comment.
func command(line, note string) string { return line + comment + note }

func setSysctl(name string, n int64) string { return fmt.Sprintf("sysctl -w %s=%d", name, n) }

// roundUp rounds n up to two significant digits.
func roundUp(n int64) int64 {
	step := int64(1)
	for n/step >= 100 {
		step *= 10
	}
	return ceil(n, step) * step
}

func bytesText(n int64) string {
	v := float64(n)
	for _, unit := range []string{"B", "kB", "MB"} {
		if math.Abs(v) < 1000 {
			return fmt.Sprintf("%.3g %s", v, unit)
		}
		v /= 1000
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " GB"
}

// Write writes the report as text: a summary, a table of all checks, and for each
// one that is wrong or unknown the reason and the fixes.
func (r Report) Write(w io.Writer) error {
	var b strings.Builder
	r.writeSummary(&b)
	t := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "\n\tCHECK\tHAVE\tNEED\n")
	for _, f := range r.Findings {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.Status, f.Name, f.Have, f.Need)
	}
	t.Flush() // a strings.Builder cannot fail
	sysctls := false
	for _, status := range []string{Wrong, Unknown} {
		for _, f := range r.Findings {
			if f.Status != status {
				continue
			}
			fmt.Fprintf(&b, "\n%s: %s, have %s, need %s\n%s", f.Status, f.Name, f.Have, f.Need, wrap(f.Why, "  "))
			for i, line := range f.Fix {
				word := "fix"
				if i > 0 {
					word = " or"
				}
				fmt.Fprintf(&b, "  %s  %s\n", word, line)
				sysctls = sysctls || strings.HasPrefix(line, "sysctl -w")
			}
		}
	}
	if sysctls {
		b.WriteString("\nsysctl -w lasts until the next boot. " +
			"To keep a value, write NAME = VALUE\nto a file in /etc/sysctl.d.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeSummary writes the lines above the table.
func (r *Report) writeSummary(b *strings.Builder) {
	count := map[string]int{}
	for _, f := range r.Findings {
		count[f.Status]++
	}
	word := "OK"
	if count[Wrong] > 0 {
		word = fmt.Sprintf("WRONG: %d of %d checks", count[Wrong], len(r.Findings))
	}
	if count[Unknown] > 0 {
		word += fmt.Sprintf(", %d unknown", count[Unknown])
	}
	p := &r.Plan
	role := "server"
	switch {
	case p.Role == Both:
		role = "server and clients on this machine"
	case p.Role == Client && p.loopback():
		role = "clients of a server on this machine"
	case p.Role == Client:
		role = "clients"
	}
	fmt.Fprintf(b, "%s\n%s connections: %s, %s\n", word, wording.Grouped(int64(p.Connections)), role, processes(p))
	if r.Fits != nil {
		fmt.Fprintf(b, "This machine can carry %s in this setup.\n", wording.Grouped(int64(*r.Fits)))
	}
}

// processes describes the number of processes.
func processes(p *Plan) string {
	number := func(n int) string {
		if n == 1 {
			return "1 process"
		}
		return wording.Grouped(int64(n)) + " processes"
	}
	switch {
	case p.Role != Both:
		return number(p.Processes)
	case p.Processes == p.ServerProcesses:
		return number(p.Processes) + " each"
	}
	return fmt.Sprintf("%s for the load test and %d for the server", number(p.Processes), p.ServerProcesses)
}

// wrap breaks text into lines of at most 80 columns, each with the indent.
func wrap(text, indent string) string {
	var b strings.Builder
	width := 0
	for word := range strings.FieldsSeq(text) {
		n := len([]rune(word))
		switch {
		case width == 0:
			b.WriteString(indent)
			width = len(indent)
		case width+1+n > 80:
			b.WriteString("\n" + indent)
			width = len(indent)
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += n
	}
	return b.String() + "\n"
}
