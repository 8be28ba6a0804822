package doctor

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"heartwheel/internal/wording"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = "testdata/" + name
	if *update {
		if err := os.WriteFile(name, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestWrite(t *testing.T) {
	for name, c := range map[string]struct {
		tree fstest.MapFS
		plan Plan
	}{
		"ok": {tree(), Plan{Connections: 100_000, Role: Server}},
		"wrong": {tree(limits, limit("20000"), tracked, "262144", count, "0", "proc/sys/net/core/somaxconn", "128"),
			Plan{Connections: 1_000_000, Role: Both, Processes: 60, ServerProcesses: 1}},
		"unknown": {tree("proc/meminfo", "-"), Plan{Connections: 10, Role: Client, Target: "localhost:9000"}},
	} {
		r := Check(c.tree, c.plan)
		var b, j bytes.Buffer
		if err := r.Write(&b); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".txt", b.Bytes())
		for line := range strings.Lines(b.String()) {
			if strings.TrimRight(line, " \n") != strings.TrimSuffix(line, "\n") {
				t.Errorf("%s: blanks at the end of %q", name, line)
			}
		}
		enc := json.NewEncoder(&j)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(r); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".json", j.Bytes())
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := wording.Grouped(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 136_000_000: "136 MB", 9_640_000_000: "9.6 GB",
		24_576_000_000_000: "24576.0 GB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
	for n, want := range map[int64]int64{1: 1, 99: 99, 100: 100, 101: 110, 4097: 4100, 2_000_577: 2_100_000} {
		if got := roundUp(n); got != want {
			t.Errorf("%d is rounded to %d", n, got)
		}
	}
	for n := range int64(200_000) {
		if l := limitFor(n); room(l) < n || n > 0 && room(l-1) >= n {
			t.Fatalf("a limit of %d is for %d connections, not %d", l, room(l), n)
		}
	}
}
