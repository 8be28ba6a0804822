package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
)

var (
	//go:embed assets/page.html.tmpl
	pageText string
	//go:embed assets/page.css
	pageCSS string
)

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// WriteHTML writes the page: one file that loads nothing and has no script.
func (r *Results) WriteHTML(w io.Writer) error { return pageTemplate.Execute(w, r.page()) }

// A page is what the template shows.
type page struct {
	*Results
	CSS         template.CSS
	Provenance  string
	Warnings    []string
	Tiles       []tile
	Overviews   []overview
	Counts      []counts
	Wins        []string
	NoWins      string
	Sections    []section
	Micro       []microRow
	MicroUnits  []string
	Left        []string
	Environment []labelled
}

type (
	tile     struct{ Label, Value, Note string }
	labelled struct{ Label, Value string }
	overview struct {
		Title string
		Chart template.HTML
	}
	counts  struct{ What, Own, Floor, Best string }
	section struct {
		Key, Title, Text string
		Cells            []cellView
	}
	cellView struct {
		Title, Headline string
		Chart           template.HTML
		Heads           []string
		Rows            []rowView
	}
	rowView struct {
		Name, Runs string
		Subject    bool
		Values     []valueView
	}
	valueView struct {
		Text, Spread string
		Ratio        *ratioView
	}
	ratioView struct{ Text, Class string }
	microRow  struct {
		Name, Runs string
		Ratio      string // of heartwheel's own part to this one
		Values     []valueView
	}
)

func (r *Results) page() *page {
	tables := r.Tables()
	p := &page{Results: r, CSS: template.CSS(pageCSS), Provenance: r.provenance(), Left: r.left(),
		Environment: r.environment()}
	if r.Environment.Quick {
		p.Warnings = append(p.Warnings, "A quick run: it shows that the harness works. Its "+
			"figures are not to be published.")
	}
	if r.Environment.Loose {
		p.Warnings = append(p.Warnings, "A loose run: nothing was discarded, however busy the machine was. Its "+
			"figures are not to be published.")
	}
	if r.Environment.Interrupted {
		p.Warnings = append(p.Warnings, "Interrupted: these are the figures until then.")
	}
	p.overview(tables)
	p.Wins, p.NoWins = wins(tables)
	p.sections(tables)
	p.micro()
	return p
}

func withDeadlines(c *Contender) bool { return c.Deadlines }
func anyone(*Contender) bool          { return true }

// overview fills in the charts of the headline ratios, the counts and the tiles.
func (p *page) overview(tables []Table) {
	for _, against := range []struct {
		title string
		row   func(t *Table) *Row
		named bool
	}{
		{"Against bare gnet, which has no deadlines", func(t *Table) *Row { return t.Row(Floor) }, false},
		{"Against the best that has deadlines", func(t *Table) *Row { return t.Best(withDeadlines) }, true},
		{"Against the best of all", func(t *Table) *Row { return t.Best(anyone) }, true},
	} {
		var list []stick
		tally := map[Verdict]int{}
		for i := range tables {
			t := &tables[i]
			row := against.row(t)
			if !t.Metric.Headline || row == nil || row.Ratio.N == 0 {
				continue
			}
			st := stick{t.Workload.Key + " " + shorter(t.Cell.Title) + ": " +
				t.Metric.Title, "", row.Ratio, row.Verdict}
			if t.Metric.More {
				st.interval = row.Ratio.inverse()
			}
			if against.named {
				st.against = row.Contender.Name
			}
			tally[row.Verdict]++
			list = append(list, st)
		}
		if len(list) > 0 {
			p.Overviews = append(p.Overviews, overview{against.title, sticks(against.title, list)})
			note := fmt.Sprintf("better, even, worse; of %s", plural(len(list), "headline ratio"))
			if n := tally[Unclear]; n > 0 {
				note += fmt.Sprintf(", %d too few runs to tell", n)
			}
			p.Tiles = append(p.Tiles, tile{strings.ToLower(against.title[:1]) + against.title[1:],
				fmt.Sprintf("✓ %d · = %d · ✗ %d", tally[Better], tally[Even], tally[Worse]), note})
		}
	}
	for i := range tables {
		if t := &tables[i]; t.Metric.counted() && t.Metric.Headline && t.Row(Subject) != nil {
			p.Counts = append(p.Counts, counts{t.Workload.Key + " " + t.Cell.Title + ": " + t.Metric.Title,
				t.Row(Subject).counts(), t.Row(Floor).counts(), t.Best(withDeadlines).counts()})
		}
	}
	p.Tiles = append(p.Tiles, tile{"runs", grouped(int64(len(p.Runs))),
		fmt.Sprintf("%d discarded, %d failed", p.discarded(), p.failed())})
}

// counts is the median count of a row, which may be nil, with whose it is.
func (row *Row) counts() string {
	switch {
	case row == nil:
		return "–"
	case row.N == 0:
		return row.nothing()
	case row.Contender.Name == Subject || row.Contender.Name == Floor:
		return number(row.Median)
	}
	return number(row.Median) + " (" + row.Contender.Name + ")"
}

// inverse is the interval of the other's ratio to this one.
func (iv Interval) inverse() Interval {
	iv.Mid, iv.Low, iv.High = 1/iv.Mid, 1/iv.High, 1/iv.Low
	return iv
}

// shorter drops the number of connections, for a label beside a chart.
func shorter(title string) string {
	parts := strings.Split(title, ", ")
	if len(parts) > 1 {
		parts = slices.DeleteFunc(parts, func(s string) bool { return strings.HasSuffix(s, " connections") })
	}
	return strings.Join(parts, ", ")
}

func (p *page) sections(tables []Table) {
	for i := 0; i < len(tables); {
		w := tables[i].Workload
		s := section{Key: w.Key, Title: w.Title, Text: w.Text}
		for i < len(tables) && tables[i].Workload.Key == w.Key {
			k := i
			for k < len(tables) && tables[k].Cell.ID == tables[i].Cell.ID {
				k++
			}
			s.Cells = append(s.Cells, viewCell(tables[i:k]))
			i = k
		}
		p.Sections = append(p.Sections, s)
	}
}

// viewCell shows the tables of one cell: the first headline metric as a chart,
// all of them in a table.
func viewCell(tables []Table) cellView {
	head := &tables[0]
	for i := range tables {
		if tables[i].Metric.Headline {
			head = &tables[i]
			break
		}
	}
	v := cellView{Title: head.Cell.Title, Headline: head.Metric.Title, Chart: head.dots()}
	if head.Metric.More {
		v.Headline += ", more is better"
	}
	for i := range tables {
		v.Heads = append(v.Heads, tables[i].Metric.Title)
	}
	for _, row := range head.Rows {
		rv := rowView{Name: row.Contender.Name, Subject: row.Contender.Name == Subject, Runs: row.runs()}
		for i := range tables {
			rv.Values = append(rv.Values, tables[i].Row(row.Contender.Name).view(&tables[i].Metric))
		}
		v.Rows = append(v.Rows, rv)
	}
	return v
}

// runs says how many runs count, and how many do not.
func (row *Row) runs() string {
	text := fmt.Sprint(row.N)
	if row.Excluded {
		text = "–"
	}
	if n := row.Discarded; n > 0 {
		text += fmt.Sprintf(", %d discarded", n)
	}
	if n := row.Failed; n > 0 {
		text += fmt.Sprintf(", %d failed", n)
	}
	return text
}

func (row *Row) view(m *Metric) valueView {
	if row == nil || row.N == 0 {
		return valueView{Text: "–"}
	}
	v := valueView{Text: value(row.Median, m.Unit)}
	if row.N > 1 {
		v.Spread = value(row.Min, m.Unit) + " – " + value(row.Max, m.Unit)
	}
	if row.Verdict != "" {
		v.Ratio = &ratioView{row.Verdict.Mark(), string(row.Verdict)}
		if row.Ratio.N > 0 {
			v.Ratio.Text += " " + row.Ratio.Text()
		}
	}
	return v
}

func (p *page) micro() {
	for _, m := range p.Results.Micro {
		for unit := range m.Values {
			if !slices.Contains(p.MicroUnits, unit) {
				p.MicroUnits = append(p.MicroUnits, unit)
			}
		}
	}
	slices.SortFunc(p.MicroUnits, func(a, b string) int { return strings.Compare(microOrder(a), microOrder(b)) })
	ratios := map[string]string{}
	for _, m := range p.microRatios() {
		ratios[m.group+"/"+m.other] = m.Text()
	}
	for _, m := range p.Results.Micro {
		row := microRow{Name: m.Name, Ratio: ratios[m.Name]}
		for _, unit := range p.MicroUnits {
			s := Summarize(m.Values[unit])
			v := valueView{Text: number(s.Median)}
			if s.N > 1 && s.Min != s.Max {
				v.Spread = number(s.Min) + " – " + number(s.Max)
			}
			row.Values = append(row.Values, v)
			row.Runs = fmt.Sprint(max(s.N, len(m.Values["ns/op"])))
		}
		p.Micro = append(p.Micro, row)
	}
}

// microOrder puts go test's own units first.
func microOrder(unit string) string {
	if i := slices.Index([]string{"ns/op", "B/op", "allocs/op"}, unit); i >= 0 {
		return fmt.Sprint(i)
	}
	return "9" + unit
}
