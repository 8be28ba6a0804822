package loadtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// isLocal reports whether the address is one of this machine.
func isLocal(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addrs, func(n net.Addr) bool {
		p, err := netip.ParsePrefix(n.String())
		return err == nil && p.Addr().Unmap() == a
	})
}

// listenerPIDs finds the local processes with a listening socket on the port. Those of
// other users are hidden without privilege.
func listenerPIDs(port uint16) []int {
	inodes := map[string]bool{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			// sl local_address rem_address st … inode; 0A is LISTEN
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 || fields[3] != "0A" {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			if p, err := strconv.ParseUint(hex, 16, 16); err == nil && uint16(p) == port {
				inodes["socket:["+fields[9]+"]"] = true
			}
		}
		f.Close()
	}
	if len(inodes) == 0 {
		return nil
	}
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if holdsSocket(dir, inodes) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

func holdsSocket(dir string, inodes map[string]bool) bool {
	d, err := os.Open(dir + "/fd")
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return slices.ContainsFunc(names, func(name string) bool {
		link, err := os.Readlink(dir + "/fd/" + name)
		return err == nil && inodes[link]
	})
}

// A procSample is the processor time and resident size of processes.
type procSample struct {
	cpuSeconds float64
	rss        int64
}

// readProcs adds up the processes. It is an error if one is gone.
func readProcs(pids []int) (procSample, error) {
	var s procSample
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return s, err
		}
		one, err := parseStat(text)
		if err != nil {
			return s, err
		}
		s.cpuSeconds += one.cpuSeconds
		s.rss += one.rss
	}
	return s, nil
}

// parseStat reads /proc/PID/stat. The name, second and in parentheses, may contain
// anything.
func parseStat(text []byte) (procSample, error) {
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 22 {
		return procSample{}, errors.New("/proc/PID/stat has too few fields")
	}
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	pages, err3 := strconv.ParseInt(fields[21], 10, 64)
	const ticks = 100 // USER_HZ, fixed in the kernel's ABI
	return procSample{(user + system) / ticks, pages * int64(os.Getpagesize())}, errors.Join(err1, err2, err3)
}

// slabBytes is the memory in the kernel's slabs: exact from slabinfo, which needs
// privilege, else from meminfo, which includes reserves.
func slabBytes() (bytes int64, exact bool, err error) {
	if text, err := os.ReadFile("/proc/slabinfo"); err == nil {
		return parseSlabinfo(string(text)), true, nil
	}
	n, err := meminfo("Slab")
	return n, false, err
}

// parseSlabinfo adds up active objects × size. Listing the descriptors of a process, as
// a server's metrics do, leaves a /proc inode in the caches for each: these inodes, and
// the dentry and the label of each, are left out.
func parseSlabinfo(text string) (total int64) {
	var nodes int64
	beside := int64(0) // bytes that go with each inode
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		active, err1 := strconv.ParseInt(f[1], 10, 64)
		size, err2 := strconv.ParseInt(f[3], 10, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		switch f[0] {
		case "proc_inode_cache":
			nodes = active
			continue
		case "dentry", "lsm_inode_cache":
			beside += size
		}
		total += active * size
	}
	return total - nodes*beside
}

// meminfo is a value of /proc/meminfo in bytes.
func meminfo(name string) (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no %s", name)
}
