package settings

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"heartwheel/internal/wording"
)

func TestNearest(t *testing.T) {
	var keys []string
	for _, s := range Table {
		keys = append(keys, s.Key)
	}
	for word, want := range map[string]string{
		"max_connections": "max-connections", "maxframe": "max-frame", "lisen": "listen", "Beat": "beat",
		"beat-mix": "beat-min", "outbox": "outbox", "": "ops",
	} {
		if got := wording.Nearest(word, keys); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}

}

func TestDocuments(t *testing.T) {
	for text, want := range map[string]int{
		"":                              0,
		"# only\n\n# comments\n":        0,
		"a: 1":                          1,
		"---\na: 1\n":                   1,
		"%YAML 1.2\n--- # x\n\na: 1":    1,
		"--- {a: 1}\n":                  1,
		"a: 1\n...\n":                   1,
		"a: ---\n":                      1,
		"a: |\n  x\n  ---\n":            1,
		"a: 1\n---\nb: 2\n":             2,
		"a: 1\r\n---\r\nb: 2\r\n":       2,
		"---\na: 1\n--- # two\n\nb: 2":  2,
		"{a: 1}\n--- {b: 2}\n":          2,
		"a: 1\n...\nb: 2\n":             2,
		"---\na: 1\n---\n---\n--- b: 2": 2,
	} {
		if got := documents([]byte(text)); got != want {
			t.Errorf("%q holds %d documents, want %d", text, got, want)
		}
	}
}

func TestFileSizeIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big.yaml")
	for size, tooLarge := range map[int]bool{maxFile: false, maxFile + 1: true} {
		text := make([]byte, size)
		for i := range text {
			text[i] = '#'
		}
		if err := os.WriteFile(path, text, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := fileLayer(path); (err != nil) != tooLarge {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// FuzzFile: whatever the file holds, the result is settings that the server
// takes, or an error with at least one line.
func FuzzFile(f *testing.F) {
	for _, text := range []string{
		"", "beat: 3s\n", "beat: 15", "listen: [a, [b]]", "listen: {a: b}", "a.b.c: 1", "beat: {}", "beat:", "? [x]\n: y",
		"profile: fast\ntimeout: 9s\nlisten: tcp://[::1]:0\nops: off\nmax-connections: 1e6\n",
		"beat: &x [*x]", "a: &a {b: 1}\n<<: *a\n", "1: 2\ntrue: false\n~: ~\n", "beat: .nan", "beat: !!binary aGk=",
		"---\nbeat: 1s\n---\nbeat: 2s", "beat: 2001-01-01", "\xff\xfe", "loops: 0x10", "\tbeat: 1s",
	} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "f.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o666); err != nil {
			t.Fatal(err)
		}
		r, err := Resolve(FlagLayer(map[string]any{"config": path}))
		if err == nil {
			if err := r.Validate(); err != nil {
				t.Errorf("%q: Resolved, but %v", text, err)
			}
			return
		}
		var usage *UsageError
		if !errors.As(err, &usage) || len(usage.Lines) == 0 {
			t.Errorf("%q: %v", text, err)
		}
	})
}
