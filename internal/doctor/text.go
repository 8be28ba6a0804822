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

// fix sets the ways to mend f, less empty ones.
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

// remark begins what a shell ignores.
const remark = "   # "

// command is a line to copy, with a remark.
func command(line, about string) string { return line + remark + about }

func setSysctl(name string, n int64) string { return fmt.Sprintf("sysctl -w %s=%d", name, n) }

// roundUp is n with two digits that count, so that there is a little room.
func roundUp(n int64) int64 {
	step := int64(1)
	for n/step >= 100 {
		step *= 10
	}
	return ceil(n, step) * step
}

// trimFile turns "/proc/x is not there" into the rest of a sentence about it.
func trimFile(text string) string {
	text = strings.TrimSuffix(text, ": file does not exist")
	if strings.HasPrefix(text, "/") {
		return "is read from " + strings.Replace(text, " ", ", which ", 1)
	}
	return text
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

// Write writes the report for a person: the verdict, a table, and below it
// what is wrong or unknown, with what to do.
func (r Report) Write(w io.Writer) error {
	var b strings.Builder
	r.verdict(&b)
	t := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "\n\tCHECK\tHAVE\tNEED\n")
	for _, f := range r.Findings {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.Status, f.Name, f.Have, f.Need)
	}
	t.Flush() // a strings.Builder cannot fail
	lasting := false
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
				lasting = lasting || strings.HasPrefix(line, "sysctl -w")
			}
		}
	}
	if lasting {
		b.WriteString("\nWhat sysctl -w sets lasts until the machine starts anew; as NAME = VALUE in a\nfile in /etc/sysctl.d it stays.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) verdict(b *strings.Builder) {
	count := map[string]int{}
	for _, f := range r.Findings {
		count[f.Status]++
	}
	word := "OK"
	if count[Wrong] > 0 {
		word = fmt.Sprintf("WRONG: %d of %d checks", count[Wrong], len(r.Findings))
	}
	if count[Unknown] > 0 {
		word += fmt.Sprintf(", %d not known", count[Unknown])
	}
	p := &r.Plan
	who := "as a server"
	switch {
	case p.Role == Both:
		who = "servers and clients both on this machine"
	case p.Role == Client && p.loopback():
		who = "as clients of a server on this machine"
	case p.Role == Client:
		who = "as clients"
	}
	fmt.Fprintf(b, "%s\n%s connections, %s, in %s\n", word, wording.Grouped(int64(p.Connections)), who, processes(p))
	if r.Fits != nil {
		fmt.Fprintf(b, "As it is, this machine carries %s in this way.\n", wording.Grouped(int64(*r.Fits)))
	}
}

func processes(p *Plan) string {
	one := func(n int) string {
		if n == 1 {
			return "1 process"
		}
		return wording.Grouped(int64(n)) + " processes"
	}
	switch {
	case p.Role != Both:
		return one(p.Processes)
	case p.Processes == p.ServerProcesses:
		return one(p.Processes) + " each"
	}
	return fmt.Sprintf("%s of the load test and %d of the server", one(p.Processes), p.ServerProcesses)
}

// wrap breaks text into lines of at most 80 characters, each behind the indent.
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
