//go:build unix

package doctor

import "golang.org/x/sys/unix"

// descriptorLimit is the hard limit of this process, as the system call says.
func descriptorLimit() reading {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return reading{err: err}
	}
	return reading{n: int64(min(uint64(r.Max), unlimited))}
}
