package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/HdrHistogram/hdrhistogram-go"

	"heartwheel/internal/wording"
)

// A Run is the files of a run. Not safe for concurrent use.
type Run struct {
	Summary *Summary // summary.json
	Samples []Sample // timeseries.ndjson; none if it is missing
	Events  []Event  // events.ndjson; none if it is missing

	// In ns, for the .hgrm files; nil: not written. Read leaves them nil.
	Response, Service, Detection *hdrhistogram.Histogram
}

// maxStored bounds the bytes read of each file.
const maxStored = 1 << 30

// ReadSummary reads the summary of a run. path is the directory that --out named, or the
// file itself. The error says what to do.
func ReadSummary(path string) (*Summary, error) {
	file := path
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		file = filepath.Join(path, "summary.json")
	}
	text, err := readStored(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w; "+
			"give the directory that heartwheel loadtest --out wrote, or its summary.json", file, wording.Cause(err))
	}
	var head struct {
		Schema string `json:"schema"`
	}
	s := &Summary{}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("%s is not the summary of a load test: %w", file, err)
	}
	if head.Schema != Schema {
		return nil, fmt.Errorf("%s has the schema %q, and this heartwheel reads %q; use the heartwheel that wrote it",
			file, head.Schema, Schema)
	}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("%s is not the summary of a load test: %w", file, err)
	}
	return s, nil
}

func readStored(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxStored+1))
	if err == nil && len(text) > maxStored {
		err = errors.New("it is larger than any that a load test writes")
	}
	return text, err
}

// Read reads the files of a run from the directory that --out named.
func Read(dir string) (*Run, error) {
	s, err := ReadSummary(dir)
	if err != nil {
		return nil, err
	}
	r := &Run{Summary: s}
	if r.Samples, err = readLines[Sample](filepath.Join(dir, "timeseries.ndjson")); err != nil {
		return nil, err
	}
	r.Events, err = readLines[Event](filepath.Join(dir, "events.ndjson"))
	return r, err
}

// readLines reads one JSON object a line; no file is no lines.
func readLines[T any](file string) ([]T, error) {
	text, err := readStored(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", file, wording.Cause(err))
	}
	var list []T
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return nil, fmt.Errorf("line %d of %s is not what a load test writes: %w", n, file, err)
		}
		list = append(list, v)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", file, err)
	}
	return list, nil
}

// RewriteHTML writes report.html of the run in dir again from its other files, and
// returns its path.
func RewriteHTML(dir string) (path string, err error) {
	r, err := Read(dir)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := WriteHTML(&b, r.Summary, r.Samples, r.Events); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "report.html")
	if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
		return "", fmt.Errorf("cannot write %s: %w; make room, or let this user write there", path, wording.Cause(err))
	}
	return path, nil
}
