//go:build unix

package doctor

import "golang.org/x/sys/unix"

// descriptorLimit returns the hard descriptor limit of this process.
func descriptorLimit() reading {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return reading{err: err}
	}
	return reading{n: int64(min(uint64(r.Max), unlimited))}
}
