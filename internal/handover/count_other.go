//go:build !linux

package cli

import (
	"errors"
	"os"

	"heartwheel/server"
)

var errNoWorkers = errors.New("workers are possible on Linux only")

func newCount(int) (*os.File, *server.SharedCount, error) { return nil, nil, errNoWorkers }

func mapCount(*os.File, int) (*server.SharedCount, error) { return nil, errNoWorkers }
