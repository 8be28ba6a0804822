package loadtest

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
)

// prepareOut makes the directory and tries to write in it, so that a run of
// hours does not end without its result.
func prepareOut(dir string) error {
	if dir == "" {
		return nil
	}
	err := os.MkdirAll(dir, 0o777)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, ".try-*"); err == nil {
			_, err = f.Write(make([]byte, 4096))
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		return &PlanError{[]string{fmt.Sprintf("out %q: cannot be written to: %s; give a directory that can", dir, plainCause(err))}}
	}
	return nil
}

// plainCause drops the operation and the path, which the message has already.
func plainCause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// write writes all files into dir and returns their names.
func (o *outcome) write(dir string) (names []string, err error) {
	for _, file := range []struct {
		name  string
		skip  bool
		write func(w io.Writer) error
	}{
		{"summary.json", false, o.writeSummary},
		{"timeseries.ndjson", false, func(w io.Writer) error { return writeLines(w, o.samples) }},
		{"events.ndjson", false, func(w io.Writer) error { return writeLines(w, o.events) }},
		{"response.hgrm", o.response.count() == 0, o.response.writeHgrm},
		{"service.hgrm", o.service.count() == 0, o.service.writeHgrm},
		{"detection.hgrm", o.detected.count() == 0, o.detected.writeHgrm},
		{"report.html", false, func(w io.Writer) error { return WriteHTML(w, o.summary, o.samples, o.events) }},
	} {
		path := filepath.Join(dir, file.name)
		if file.skip {
			// One from a run before would be taken for one of this run.
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return names, fmt.Errorf("cannot remove the old %s: %w", path, plainCause(err))
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
	return fmt.Errorf("cannot write %s: %w; %s", path, plainCause(err), do)
}

func (o *outcome) writeSummary(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(o.summary)
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

// writeHgrm writes the percentile distribution of HdrHistogram's plotter, in µs.
func (h hist) writeHgrm(w io.Writer) error {
	_, err := h.h.PercentilesPrint(w, 5, 1000)
	return err
}
