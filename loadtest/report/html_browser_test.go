package report

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

var screenshots = flag.String("screenshots", "", "`directory` for pictures of the HTML report")

// browser starts a headless Chromium, or skips the test where there is none.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("no Chromium here to open the report with: apt-get install chromium")
	}
	profile, err := os.MkdirTemp("", "heartwheel-browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A helper process may outlive the browser and still write.
		err := os.RemoveAll(profile)
		for end := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(end); err = os.RemoveAll(profile) {
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			t.Error(err)
		}
	})
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless,
		chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking",
			true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.UserDataDir(profile),
		chromedp.WSURLReadTimeout(time.Minute),
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)                        // which waits for the end of the browser
	if err := chromedp.Do(ctx); err != nil { // starts it
		t.Fatal(err)
	}
	return ctx
}

// A witness records errors and requests of a page.
type witness struct {
	mu       sync.Mutex
	problems []string
}

func (w *witness) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

// watch records everything in the tab before a command returns.
func (w *witness) watch(t *testing.T, tab context.Context, url string) {
	t.Helper()
	err := chromedp.Listen(tab, func(event any) {
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			w.note("the console has a line of type %s: %s", e.Type, args(e.Args))
		case *runtime.EventExceptionThrown:
			text := e.ExceptionDetails.Text
			if e.ExceptionDetails.Exception != nil {
				text = e.ExceptionDetails.Exception.Description
			}
			w.note("an exception: %s", text)
		case *log.EventEntryAdded:
			w.note("the log has: %s", e.Entry.Text)
		case *network.EventRequestWillBeSent:
			if e.Request.URL != url && !strings.HasPrefix(e.Request.URL, "data:") {
				w.note("a request for %s", e.Request.URL)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// call runs a command whose only result is success.
func call[P, R any](t *testing.T, tab context.Context, command cdp.Command[P, R], params P) {
	t.Helper()
	if _, err := chromedp.Call(tab, command, params); err != nil {
		t.Fatal(err)
	}
}

// get is the value of an action.
func get[T any](t *testing.T, tab context.Context, action chromedp.Action[T]) T {
	t.Helper()
	value, err := chromedp.Run(tab, action)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func args(list []*runtime.RemoteObject) string {
	text, _ := json.Marshal(list)
	return string(text)
}

// A drawing is what was found in one chart.
type drawing struct {
	ID     string
	Width  float64
	Height float64
	Series []struct {
		Label, Color string
		Pixels       int
	}
}

// look counts, in every chart, the pixels of the canvas in the colour of each series.
const look = `[...document.querySelectorAll(".plot")].map((box) => {
	const canvas = box.querySelector("canvas");
	if (!canvas) return { ID: box.id, Width: 0, Height: 0, Series: [] };
	const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
	const rows = [...box.querySelectorAll(".u-legend .u-series")].slice(1);
	const Series = rows.map((row) => {
		const style = getComputedStyle(row.querySelector(".u-marker"));
		const Color = box.id === "chart-detection" ?
			getComputedStyle(document.documentElement).getPropertyValue("--green") : style.borderTopColor;
		const probe = document.createElement("i");
		probe.style.color = Color;
		document.body.append(probe);
		const [r, g, b] = getComputedStyle(probe).color.match(/\d+/g).map(Number);
		probe.remove();
		let Pixels = 0;
		for (let i = 0; i < data.length; i += 4) {
			const off = Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b);
			if (data[i + 3] > 100 && off < 24) Pixels++;
		}
		return { Label: row.querySelector(".u-label").textContent, Color, Pixels };
	});
	return { ID: box.id, Width: canvas.clientWidth, Height: canvas.clientHeight, Series };
})`

func TestHTMLInBrowser(t *testing.T) {
	ctx := browser(t)
	s, samples, events := exampleRun()
	limited, _, _ := exampleRun()
	limited.Verdict = Verdict{Invalid, 4, []string{"generator-limited"}}
	limited.Response, limited.Service = nil, nil
	limited.Generator.Limited, limited.Generator.Why = true, []string{"frames lagged"}
	short, _, _ := exampleRun() // one bucket, and one second
	short.Detection.Buckets = short.Detection.Buckets[1:2]
	bare := &Summary{Schema: Schema, Verdict: Verdict{Word: Pass}, Generator: Generator{LagBoundUS: 5000}}
	for _, c := range []struct {
		name    string
		summary *Summary
		samples []Sample
		dark    bool
		width   int64
		charts  string
	}{
		{"light", s, samples, false, 1280, "spectrum connections frames latency server generator detection"},
		{"dark", s, samples, true, 1280, "spectrum connections frames latency server generator detection"},
		{"narrow", s, samples, false, 420, "spectrum connections frames latency server generator detection"},
		{"limited", limited, samples, true, 1000, "connections frames server generator detection"},
		{"short", short, samples[10:11], false, 1280, "spectrum connections frames latency server generator detection"},
		{"bare", bare, nil, false, 1280, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "report.html")
			if err := os.WriteFile(file, []byte(render(t, c.summary, c.samples, events)), 0o666); err != nil {
				t.Fatal(err)
			}
			tab, cancel := chromedp.NewContext(ctx)
			defer cancel()
			get(t, tab, chromedp.EmulateViewport(c.width, 900)) // which opens the tab
			w := &witness{}
			w.watch(t, tab, "file://"+file)
			scheme := "light"
			if c.dark {
				scheme = "dark"
			}
			call(t, tab, network.Enable, network.EnableParams{})
			call(t, tab, log.Enable, struct{}{})
			call(t, tab, emulation.SetEmulatedMedia,
				emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme",
					Value: scheme}}})
			get(t, tab, chromedp.Navigate("file://"+file))
			charts := get(t, tab, chromedp.Evaluate[[]drawing](look))
			title := get(t, tab, chromedp.Title())
			overflow := get(t, tab, chromedp.Evaluate[int](`document.documentElement.scrollWidth - innerWidth`))
			scripts := get(t, tab, chromedp.Evaluate[int](`document.scripts.length`))
			picture(t, tab, c.name)
			if c.name == "light" {
				tryKeys(t, tab)
				pdf(t, tab)
			}
			for _, problem := range w.problems {
				t.Error(problem)
			}
			if !strings.HasSuffix(title, "heartwheel load test") || scripts != 3 {
				t.Errorf("the title is %q, and there are %d scripts", title, scripts)
			}
			if overflow > 0 {
				t.Errorf("the page is %d pixels wider than its window", overflow)
			}
			var ids []string
			for _, d := range charts {
				ids = append(ids, strings.TrimPrefix(d.ID, "chart-"))
				checkDrawing(t, d, c.samples)
			}
			if got := strings.Join(ids, " "); got != c.charts {
				t.Errorf("charts %q, want %q", got, c.charts)
			}
		})
	}
}

// checkDrawing checks that each series of a chart is drawn.
func checkDrawing(t *testing.T, d drawing, samples []Sample) {
	t.Helper()
	if d.Width < 250 || d.Height < 150 || len(d.Series) == 0 {
		t.Errorf("%s is %.0f × %.0f, with %d series", d.ID, d.Width, d.Height, len(d.Series))
	}
	total := 0
	for _, series := range d.Series {
		total += series.Pixels
		if series.Pixels < 60 && (len(samples) > 1 || d.ID == "chart-spectrum") {
			t.Errorf("%s: %q has %d pixels of its colour %s", d.ID, series.Label, series.Pixels, series.Color)
		}
	}
	if total < 10 { // the points of a single second may hide each other
		t.Errorf("%s has %d pixels of its series", d.ID, total)
	}
}

// tryKeys moves the cursor and switches a series with the keyboard.
func tryKeys(t *testing.T, tab context.Context) {
	t.Helper()
	const open = "#chart-connections .u-series:nth-child(2)"
	get(t, tab, chromedp.Focus(chromedp.CSS("#chart-connections")))
	get(t, tab, chromedp.KeyEvent(kb.ArrowRight+kb.ArrowRight))
	value := get(t, tab, chromedp.Text(chromedp.CSS("#chart-connections .u-series:first-child .u-value")))
	get(t, tab, chromedp.Focus(chromedp.CSS(open+" th")))
	get(t, tab, chromedp.KeyEvent(" "))
	off := get(t, tab, chromedp.Evaluate[bool](`document.querySelector("`+open+`").classList.contains("u-off")`))
	attribute := `document.querySelector("` + open + ` th").getAttribute("aria-checked")`
	checked := get(t, tab, chromedp.Evaluate[string](attribute))
	if value != "2 s" || !off || checked != "false" {
		t.Errorf("two steps to the right show %q, the series is off: %v, its switch says %q", value, off, checked)
	}
}

func picture(t *testing.T, tab context.Context, name string) {
	t.Helper()
	if *screenshots == "" {
		return
	}
	png := get(t, tab, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o666); err != nil {
		t.Fatal(err)
	}
}

// pdf prints the page.
func pdf(t *testing.T, tab context.Context) {
	t.Helper()
	file := get(t, tab, chromedp.PrintToPDF(chromedp.PDFPaper(chromedp.PaperA4), chromedp.PDFPreferCSSPageSize()))
	if len(file) < 10_000 {
		t.Errorf("%d bytes of PDF", len(file))
	}
	if *screenshots != "" {
		if err := os.WriteFile(filepath.Join(*screenshots, "print.pdf"), file, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}
