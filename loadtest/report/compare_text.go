package report

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"heartwheel/internal/wording"
)

// Text is the comparison for a person. Pure.
func (c *Comparison) Text() string {
	var b strings.Builder
	var rows [][4]string
	for _, f := range c.Figures {
		ratio := "–"
		if f.Ratio != nil {
			ratio = fmt.Sprintf("%.2f", *f.Ratio)
		}
		rows = append(rows, [4]string{f.Name, f.text(f.A), f.text(f.B), ratio})
	}
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "A\t%s\t%s\t%s\n", escape(c.A.Path), escape(c.A.Verdict), escape(orDash(c.A.Started)))
	fmt.Fprintf(w, "B\t%s\t%s\t%s\n", escape(c.B.Path), escape(c.B.Verdict), escape(orDash(c.B.Started)))
	w.Flush() // a strings.Builder cannot fail
	for i, w := range c.Warnings {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "! %s\n", escape(w))
	}
	writeDifferences(&b, "PLAN", c.Plan)
	writeDifferences(&b, "ENVIRONMENT", c.Environment)
	b.WriteByte('\n')
	writeColumns(&b, append([][4]string{{"FIGURE", "A", "B", "B÷A"}}, rows...))
	b.WriteString("\nTwo runs cannot tell a difference from noise: run both a few times, in turn.\n")
	return b.String()
}

// writeDifferences writes a table with columns of its own width: values may be long.
func writeDifferences(b *strings.Builder, title string, list []Difference) {
	if len(list) == 0 {
		return
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "%s\tA\tB\n", title)
	for _, d := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\n", escape(d.Name), escape(orDash(d.A)), escape(orDash(d.B)))
	}
	w.Flush()
}

// writeColumns aligns the first column left and the others right.
func writeColumns(b *strings.Builder, rows [][4]string) {
	var width [4]int
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := row[0] + strings.Repeat(" ", width[0]-utf8.RuneCountInString(row[0]))
		for i := 1; i < len(row); i++ {
			line += strings.Repeat(" ", 3+width[i]-utf8.RuneCountInString(row[i])) + row[i]
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

func orDash(text string) string {
	if text == "" {
		return "–"
	}
	return text
}

// text is a value of f with its unit.
func (f *Figure) text(v *float64) string {
	if v == nil {
		return "–"
	}
	switch f.Unit {
	case "us":
		return wording.Microseconds(*v)
	case "ms":
		return wording.Milliseconds(*v)
	case "bytes":
		return wording.Bytes(*v)
	case "percent":
		return wording.Percent(*v)
	}
	return wording.Grouped(int64(*v + 0.5))
}
