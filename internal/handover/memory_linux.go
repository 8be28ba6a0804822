package handover

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"heartwheel/internal/admission"
)

// memory makes a file of that size in memory, without a name. Seals keep other
// processes from making it shorter, which would kill those that map it, or longer.
func memory(name string, size int) (*os.File, error) {
	fd, err := unix.MemfdCreate("heartwheel-"+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("cannot make memory to share: memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err = f.Truncate(int64(size)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot make memory to share: %w", err)
	}
	return f, nil
}

// NewCount makes a connection count with slots for that many processes, and the
// file to pass it on by. The count has slot 0.
func NewCount(slots int) (*os.File, *admission.SharedCount, error) {
	f, err := memory("count", slots*admission.SlotBytes)
	if err != nil {
		return nil, nil, err
	}
	c, err := mapCount(f, 0)
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("cannot make memory to share: %w", err)
	}
	return f, c, nil
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

// newSettings makes a file in memory with the content of the configuration file.
func newSettings(data []byte) (*os.File, error) {
	f, err := memory("settings", len(data))
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot make memory to share: %w", err)
	}
	return f, nil
}
