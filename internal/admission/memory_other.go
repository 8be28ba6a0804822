//go:build !linux

package admission

import "errors"

// machineMemory is not known.
func machineMemory() uint64 { return noLimit }

// memoryMeters knows no limit: the use of memory is read on Linux only.
func memoryMeters(own int, _ func() int64) ([]Meter, error) {
	if own > 0 {
		return nil, errors.New("the use of memory is known on Linux only; set no memory limit")
	}
	return nil, nil
}
