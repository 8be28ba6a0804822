//go:build !linux

package handover

import (
	"errors"
	"os"

	"heartwheel/internal/admission"
)

var errNoWorkers = errors.New("workers are possible on Linux only")

// NewCount fails: workers need Linux.
func NewCount(int) (*os.File, *admission.SharedCount, error) { return nil, nil, errNoWorkers }

func mapCount(*os.File, int) (*admission.SharedCount, error) { return nil, errNoWorkers }

func newSettings([]byte) (*os.File, error) { return nil, errNoWorkers }
