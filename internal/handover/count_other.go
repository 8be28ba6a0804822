//go:build !linux

package handover

import (
	"errors"
	"os"

	"heartwheel/server"
)

var errNoWorkers = errors.New("workers are possible on Linux only")

// NewCount fails: workers need Linux.
func NewCount(int) (*os.File, *server.SharedCount, error) { return nil, nil, errNoWorkers }

func mapCount(*os.File, int) (*server.SharedCount, error) { return nil, errNoWorkers }
