package handover

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"heartwheel/internal/admission"
)

// NewCount makes a connection count with slots for that many processes, in
// memory without a name, and the file to pass it on by. The count has slot 0.
func NewCount(slots int) (*os.File, *admission.SharedCount, error) {
	fd, err := unix.MemfdCreate("heartwheel-connections", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make memory to share: memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "count")
	err = f.Truncate(int64(slots * admission.SlotBytes))
	if err == nil {
		var c *admission.SharedCount
		if c, err = mapCount(f, 0); err == nil {
			return f, c, nil
		}
	}
	f.Close()
	return nil, nil, fmt.Errorf("cannot make memory to share: %w", err)
}

// mapCount maps the file for as long as this process lives.
func mapCount(f *os.File, slot int) (*admission.SharedCount, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return admission.NewSharedCount(mem, slot)
}
