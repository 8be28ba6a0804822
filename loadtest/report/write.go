package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/HdrHistogram/hdrhistogram-go"

	"heartwheel/internal/wording"
)

// Write writes all files of the run to dir and returns their names. The error says what
// to do.
func (r *Run) Write(dir string) (names []string, err error) {
	for _, file := range []struct {
		name  string
		skip  bool
		write func(w io.Writer) error
	}{
		{"summary.json", false, r.WriteSummary},
		{"timeseries.ndjson", false, func(w io.Writer) error { return writeLines(w, r.Samples) }},
		{"events.ndjson", false, func(w io.Writer) error { return writeLines(w, r.Events) }},
		{"response.hgrm", r.Response == nil, writePercentiles(r.Response)},
		{"service.hgrm", r.Service == nil, writePercentiles(r.Service)},
		{"detection.hgrm", r.Detection == nil, writePercentiles(r.Detection)},
		{"report.html", false, func(w io.Writer) error { return WriteHTML(w, r.Summary, r.Samples, r.Events) }},
	} {
		path := filepath.Join(dir, file.name)
		if file.skip {
			// A file of an earlier run would be taken for one of this run.
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return names, fmt.Errorf("cannot remove the old %s: %w", path, wording.Cause(err))
			}
			continue
		}
		if err := writeFile(path, file.write); err != nil {
			return names, err
		}
		names = append(names, file.name)
	}
	return names, nil
}

// writeFile writes a file whole or not at all.
func writeFile(path string, write func(w io.Writer) error) error {
	var b bytes.Buffer
	err := write(&b)
	if err == nil {
		if err = os.WriteFile(path, b.Bytes(), 0o666); err != nil {
			_ = os.Remove(path)
		}
	}
	if err == nil {
		return nil
	}
	do := "give --out a directory that can be written to"
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		do = "free some space, or give --out a directory on another disk; the figures are above"
	}
	return fmt.Errorf("cannot write %s: %w; %s", path, wording.Cause(err), do)
}

// WriteSummary writes summary.json.
func (r *Run) WriteSummary(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r.Summary)
}

// writeLines writes one JSON object a line.
func writeLines[T any](w io.Writer, list []T) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i := range list {
		if err := enc.Encode(&list[i]); err != nil {
			return err
		}
	}
	return nil
}

// writePercentiles writes the percentile distribution for HdrHistogram's plotter, in µs.
func writePercentiles(h *hdrhistogram.Histogram) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := h.PercentilesPrint(w, 5, 1000)
		return err
	}
}
