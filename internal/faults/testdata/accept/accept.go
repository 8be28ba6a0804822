// This file is added to package internal/poll by a build with -overlay, for
// tests only: see toolchainFlags. It makes accept fail as a kernel does that has no
// file, no buffer or no memory left.

package poll

import "syscall"

// acceptErrorFile names a file that holds the number of an error, in decimal.
// While it does, every accept of the process fails with that.
var acceptErrorFile, _ = syscall.Getenv("FAULTS_ACCEPT")

// acceptOrFail stands in for accept.
func acceptOrFail(s int) (int, syscall.Sockaddr, string, error) {
	if errno := acceptError(); errno != 0 {
		return -1, nil, "accept4", errno
	}
	return accept(s)
}

func acceptError() syscall.Errno {
	if acceptErrorFile == "" {
		return 0
	}
	fd, err := syscall.Open(acceptErrorFile, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer syscall.Close(fd)
	var text [4]byte
	n, _ := syscall.Read(fd, text[:])
	errno := 0
	for _, digit := range text[:max(n, 0)] {
		errno = 10*errno + int(digit-'0')
	}
	return syscall.Errno(errno)
}
