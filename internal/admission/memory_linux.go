package admission

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// machineMemory returns the memory of the machine, in bytes.
func machineMemory() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return noLimit
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}

// memoryMeters is Control.Meters.
func memoryMeters(own int, connections func() int64) ([]Meter, error) {
	// A kernel without cgroups has neither of these two, and knows no limit.
	self, _ := os.ReadFile("/proc/self/cgroup")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	meters, err := cgroupMeters(memoryCgroups(string(self), string(mounts)))
	if own > 0 {
		f, err2 := openMemoryFile("/proc/self/statm")
		if err2 != nil {
			return meters, errors.Join(err, err2)
		}
		meters = append(meters, &processMeter{statm: f, limit: uint64(own), connections: connections})
	}
	return meters, err
}

// cgroupMeters returns meters for those that have a limit now.
func cgroupMeters(groups []memoryCgroup) ([]Meter, error) {
	var meters []Meter
	var errs []error
	for i, g := range groups {
		if i > 0 && !g.v2 && !groups[i-1].v2 && !countsChildren(g.dir) {
			break // nor does anything above it count us
		}
		m, err := newCgroupMeter(g)
		if errors.Is(err, os.ErrNotExist) {
			continue // the root of version 2, or one without the controller
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_, limit, err := m.Read()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", g.dir, err))
		}
		if err != nil || limit >= noLimit {
			m.Close()
			continue
		}
		meters = append(meters, m)
	}
	return meters, errors.Join(errs...)
}

// countsChildren reports whether a cgroup counts what is below it. Before Linux
// 5.11 one of version 1 need not.
func countsChildren(dir string) bool {
	b, err := os.ReadFile(path.Join(dir, "memory.use_hierarchy"))
	return err != nil || strings.TrimSpace(string(b)) != "0"
}

// A cgroupMeter reads the limit of a cgroup and what counts against it.
//
// The use is that of the whole cgroup, less inactive file pages, which the kernel
// takes back before it kills. What the kernel holds
// for a connection is part of it in version 2, socket and buffers included. In
// version 1 it is what the kernel's configuration and age say: on 6.18 the
// descriptor, inode and epoll item (1.5 kB) but not the TCP socket (2.4 kB) nor
// its buffers, which that version counts in memory.kmem.tcp, apart from the
// limit. What is not counted is not killed for either.
type cgroupMeter struct {
	dir      string
	limits   []memoryFile // the least of them holds
	use      memoryFile
	stat     memoryFile
	inactive []byte // the line of stat, up to its value
	buf      [8 << 10]byte
}

func newCgroupMeter(g memoryCgroup) (*cgroupMeter, error) {
	m := &cgroupMeter{dir: g.dir, use: -1, stat: -1, inactive: []byte("\ntotal_inactive_file ")}
	limits, use := []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes"
	if g.v2 {
		// Beyond memory.high the kernel does not kill, but holds up every thread
		// that allocates: as bad for a server of heartbeats.
		limits, use, m.inactive = []string{"memory.max", "memory.high"}, "memory.current", []byte("\ninactive_file ")
	}
	var err error
	open := func(name string) (f memoryFile) {
		if err == nil {
			f, err = openMemoryFile(path.Join(g.dir, name))
			return f
		}
		return -1
	}
	for _, name := range limits {
		m.limits = append(m.limits, open(name))
	}
	m.use, m.stat = open(use), open("memory.stat")
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *cgroupMeter) Name() string { return m.dir }
func (m *cgroupMeter) Shared() bool { return true }

func (m *cgroupMeter) Close() {
	for _, f := range append(m.limits, m.use, m.stat) {
		f.close()
	}
}

func (m *cgroupMeter) Read() (use, limit uint64, err error) {
	limit = noLimit
	for _, f := range m.limits {
		b, err := f.read(m.buf[:])
		if err != nil {
			return 0, 0, err
		}
		v, ok := parseBytes(b)
		if !ok {
			return 0, 0, fmt.Errorf("%q is not a limit", b)
		}
		limit = min(limit, v)
	}
	b, err := m.use.read(m.buf[:])
	if err != nil {
		return 0, 0, err
	}
	use, ok := parseBytes(b)
	if !ok {
		return 0, 0, fmt.Errorf("%q is not a number of bytes", b)
	}
	if b, err = m.stat.read(m.buf[:]); err != nil {
		return 0, 0, err
	}
	return use - min(use, statValue(b, m.inactive)), limit, nil
}

// parseBytes reads a number at the start of b, or the word max.
func parseBytes(b []byte) (v uint64, ok bool) {
	if bytes.HasPrefix(b, []byte("max")) {
		return noLimit, true
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			break
		}
		if ok = true; v >= noLimit/10 {
			return noLimit, true
		}
		v = 10*v + uint64(c-'0')
	}
	return v, ok
}

// statValue returns the value of a line of memory.stat that begins with key,
// which holds the end of the line before it; 0 if there is none.
func statValue(b, key []byte) uint64 {
	i := bytes.Index(b, key)
	if i < 0 {
		return 0
	}
	v, _ := parseBytes(b[i+len(key):])
	return v
}

// A processMeter compares this process alone with the configured limit: its
// resident memory, and what the kernel keeps for its connections.
type processMeter struct {
	statm       memoryFile
	limit       uint64
	connections func() int64
	buf         [256]byte
}

// kernelBytes is what the kernel keeps for an idle connection: the TCP socket,
// its inode, dentry and file, and the epoll item (3.9 kB on Linux 6.18).
const kernelBytes = 4 << 10

func (m *processMeter) Name() string { return "configured" }
func (m *processMeter) Shared() bool { return false }
func (m *processMeter) Close()       { m.statm.close() }

func (m *processMeter) Read() (use, limit uint64, err error) {
	b, err := m.statm.read(m.buf[:])
	if err != nil {
		return 0, 0, err
	}
	// The second field is the resident size in pages (proc_pid_statm(5)).
	i := bytes.IndexByte(b, ' ')
	pages, ok := parseBytes(b[i+1:])
	if i < 0 || !ok {
		return 0, 0, fmt.Errorf("%q has no resident size", b)
	}
	return pages*uint64(os.Getpagesize()) + uint64(max(0, m.connections()))*kernelBytes, m.limit, nil
}

// A memoryFile is a descriptor of a file that the kernel generates on each read.
// It is not an os.File, which would be added to the runtime's poller.
type memoryFile int

func openMemoryFile(name string) (memoryFile, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return memoryFile(fd), nil
}

// read returns the file's text, which lies in buf.
func (f memoryFile) read(buf []byte) ([]byte, error) {
	for {
		n, err := unix.Pread(int(f), buf, 0)
		if err == unix.EINTR {
			continue
		}
		return buf[:max(n, 0)], err
	}
}

func (f memoryFile) close() {
	if f >= 0 {
		_ = unix.Close(int(f))
	}
}
