package loadtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"heartwheel/internal/wording"
)

// prepareOut makes the directory and tries to write to it, so that a long run does
// not end without its files. Those of another run are overwritten only with force.
func prepareOut(dir string, force bool) error {
	if dir == "" {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(dir, "summary.json")); err == nil && !force {
		return &PlanError{[]string{fmt.Sprintf("out %q: has the results of another run; "+
			"name another directory, or overwrite them with --force", dir)}}
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
		return &PlanError{[]string{fmt.Sprintf("out %q: cannot be written to: %s; give a directory that can", dir,
			wording.Cause(err))}}
	}
	return nil
}
