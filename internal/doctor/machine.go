package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"heartwheel/internal/wording"
)

// A reading is a number read from the machine, or the reason why it is unknown.
type reading struct {
	n   int64
	err error
}

// unlimited means that there is no limit.
const unlimited = math.MaxInt64

func (r reading) String() string {
	switch {
	case r.err != nil:
		return "?"
	case r.n == unlimited:
		return "unlimited"
	}
	return wording.Grouped(r.n)
}

// A machine holds what the checks need to know. Static after read.
type machine struct {
	descriptors reading // hard limit of this process
	nrOpen      reading
	fileMax     reading
	filesOpen   reading
	watches     reading
	tcpPages    reading // the third number of tcp_mem
	tcpPagesNow reading
	portLow     reading
	portHigh    reading
	portsKept   int64 // reserved in the range
	tracked     reading
	trackedNow  reading
	established bool // a TCP connection is open
	somaxconn   reading
	synBacklog  reading
	synCookies  reading
	twBuckets   reading

	available reading // bytes, the smaller of the machine's and the control group's
	group     string  // the file with the control group's limit; empty: the machine's is smaller
	groupUsed int64   // bytes, by that group
}

// notLinux sets all but the descriptor limit to unknown.
func (m *machine) notLinux(err error) {
	r := reading{err: err}
	*m = machine{
		descriptors: descriptorLimit(), nrOpen: r, fileMax: r, filesOpen: r, watches: r, tcpPages: r, tcpPagesNow: r,
		portLow: r, portHigh: r, tracked: r, trackedNow: r, somaxconn: r, synBacklog: r, synCookies: r, twBuckets: r,
		available: r,
	}
}

func (m *machine) read(fsys fs.FS) {
	m.descriptors = readLimit(fsys)
	m.nrOpen = sysctl(fsys, "fs/nr_open", 0)
	m.fileMax = sysctl(fsys, "fs/file-max", 0)
	m.filesOpen = sysctl(fsys, "fs/file-nr", 0)
	m.watches = sysctl(fsys, "fs/epoll/max_user_watches", 0)
	m.tcpPages = sysctl(fsys, "net/ipv4/tcp_mem", 2)
	m.tcpPagesNow = readTCPPages(fsys)
	m.portLow = sysctl(fsys, "net/ipv4/ip_local_port_range", 0)
	m.portHigh = sysctl(fsys, "net/ipv4/ip_local_port_range", 1)
	if m.portLow.err == nil && m.portHigh.err == nil {
		m.portsKept = readKeptPorts(fsys, m.portLow.n, m.portHigh.n)
	}
	m.tracked = sysctl(fsys, "net/netfilter/nf_conntrack_max", 0)
	m.trackedNow = sysctl(fsys, "net/netfilter/nf_conntrack_count", 0)
	if m.tracked.err == nil && m.trackedNow.n == 0 {
		m.established = anyEstablished(fsys)
	}
	m.somaxconn = sysctl(fsys, "net/core/somaxconn", 0)
	m.synBacklog = sysctl(fsys, "net/ipv4/tcp_max_syn_backlog", 0)
	m.synCookies = sysctl(fsys, "net/ipv4/tcp_syncookies", 0)
	m.twBuckets = sysctl(fsys, "net/ipv4/tcp_max_tw_buckets", 0)
	m.readMemory(fsys)
}

// sysctl reads the number at the index of a file in /proc/sys.
func sysctl(fsys fs.FS, name string, index int) reading {
	name = "proc/sys/" + name
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return reading{err: unreadable(name, err)}
	}
	return number(name, strings.Fields(string(text)), index)
}

// number parses the field at the index. name is the file's, for the error.
func number(name string, fields []string, index int) reading {
	if index >= len(fields) {
		return reading{err: fmt.Errorf("/%s has an unexpected format", name)}
	}
	n, err := strconv.ParseUint(fields[index], 10, 64)
	if err != nil {
		return reading{err: fmt.Errorf("/%s: %q is not a number", name, fields[index])}
	}
	return reading{n: int64(min(n, unlimited))}
}

// unreadable returns the error for the file with that name.
func unreadable(name string, err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return fmt.Errorf("/%s: %w", name, err)
}

// lineAfter returns the fields after the prefix in the file's first line with it.
func lineAfter(fsys fs.FS, name, prefix string) ([]string, error) {
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, unreadable(name, err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.Fields(rest), nil
		}
	}
	return nil, fmt.Errorf("/%s has no line %q", name, strings.TrimSpace(prefix))
}

// readLimit returns the hard descriptor limit. heartwheel raises the soft limit
// to it.
func readLimit(fsys fs.FS) reading {
	const name = "proc/self/limits"
	fields, err := lineAfter(fsys, name, "Max open files ")
	switch {
	case err != nil:
		return reading{err: err}
	case len(fields) > 1 && fields[1] == "unlimited":
		return reading{n: unlimited}
	}
	return number(name, fields, 1)
}

// readTCPPages returns the pages that TCP buffers take now.
func readTCPPages(fsys fs.FS) reading {
	const name = "proc/net/sockstat" // TCP: inuse 1 orphan 0 tw 2 alloc 1 mem 125
	fields, err := lineAfter(fsys, name, "TCP:")
	if err != nil {
		return reading{err: err}
	}
	return number(name, fields, slices.Index(fields, "mem")+1)
}

// readKeptPorts counts the reserved ports from low to high, which the kernel does
// not hand out. The file, such as 8080,9148-9200, may be missing.
func readKeptPorts(fsys fs.FS, low, high int64) (n int64) {
	text, _ := fs.ReadFile(fsys, "proc/sys/net/ipv4/ip_local_reserved_ports")
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseInt(from, 10, 64)
		b := a
		if isRange && err == nil {
			b, err = strconv.ParseInt(to, 10, 64)
		}
		if err == nil {
			n += max(0, min(b, high)-max(a, low)+1)
		}
	}
	return n
}

// anyEstablished reports whether a TCP connection is open.
func anyEstablished(fsys fs.FS) bool {
	for _, name := range []string{"proc/net/tcp", "proc/net/tcp6"} {
		if hasEstablished(fsys, name) {
			return true
		}
	}
	return false
}

func hasEstablished(fsys fs.FS, name string) bool {
	f, err := fsys.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// sl local_address rem_address st …; 01 is ESTABLISHED
		if fields := strings.Fields(lines.Text()); len(fields) > 3 && fields[3] == "01" {
			return true
		}
	}
	return false
}

// readMemory sets the memory that may still be used: the smaller of what the
// machine has available and what the control groups of this process allow.
func (m *machine) readMemory(fsys fs.FS) {
	m.available = meminfo(fsys, "MemAvailable")
	if m.available.err != nil {
		return
	}
	m.available.n <<= 10 // kB
	text, err := fs.ReadFile(fsys, "proc/self/cgroup")
	if err != nil {
		return // no groups, no limits
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[1] == "":
			m.limitBy(fsys, "sys/fs/cgroup", parts[2], groupV2)
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			m.limitBy(fsys, "sys/fs/cgroup/memory", parts[2], groupV1)
		}
	}
}

// groupFiles are the file names of a control group's limit and usage, and the key
// of its page cache in memory.stat.
type groupFiles struct{ limit, usage, cache string }

var (
	groupV1 = groupFiles{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
	groupV2 = groupFiles{"memory.max", "memory.current", "inactive_file"}
)

// limitBy lowers available to the limits of the group and its ancestors. In a
// container the path may be that outside of it: then only root exists, which is
// the container's group.
func (m *machine) limitBy(fsys fs.FS, root, group string, files groupFiles) {
	dir := path.Join(root, group)
	if dir != root && !strings.HasPrefix(dir, root+"/") {
		dir = root // a group outside the container
	}
	for ; ; dir = path.Dir(dir) {
		limit := groupNumber(fsys, path.Join(dir, files.limit))
		// No limit is "max" in version 2, and a number close to 1<<63 in version 1.
		if limit.err == nil && limit.n < 1<<60 {
			used := groupNumber(fsys, path.Join(dir, files.usage))
			cache := groupCache(fsys, path.Join(dir, "memory.stat"), files.cache)
			if left := max(0, limit.n-max(0, used.n-cache)); used.err == nil && left < m.available.n {
				m.available.n, m.group, m.groupUsed = left, "/"+path.Join(dir, files.limit), used.n
			}
		}
		if dir == root {
			return
		}
	}
}

func groupNumber(fsys fs.FS, name string) reading {
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return reading{err: unreadable(name, err)}
	}
	if strings.TrimSpace(string(text)) == "max" {
		return reading{n: unlimited}
	}
	return number(name, strings.Fields(string(text)), 0)
}

// groupCache returns the bytes of cached files in a group's usage, which the
// kernel frees when memory is short.
func groupCache(fsys fs.FS, name, key string) int64 {
	fields, err := lineAfter(fsys, name, key+" ")
	if err != nil {
		return 0
	}
	return number(name, fields, 0).n
}

// meminfo returns a value of /proc/meminfo, in kB.
func meminfo(fsys fs.FS, key string) reading {
	const name = "proc/meminfo"
	fields, err := lineAfter(fsys, name, key+":")
	if err != nil {
		return reading{err: err}
	}
	return number(name, fields, 0)
}
