package admission

import (
	"path"
	"strconv"
	"strings"
)

// A memoryCgroup is the directory of a cgroup whose memory limit holds for this
// process: its own, or one above it.
type memoryCgroup struct {
	dir string
	v2  bool
}

// memoryCgroups finds them in the texts of /proc/self/cgroup and
// /proc/self/mountinfo (cgroups(7), proc_pid_mountinfo(5)): the innermost first,
// and no further up than what is mounted here. Both versions may be mounted;
// the kernel has the memory controller in one of them.
func memoryCgroups(self, mounts string) []memoryCgroup {
	var all []memoryCgroup
	for line := range strings.Lines(self) {
		_, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, own, ok2 := strings.Cut(rest, ":")
		v2 := controllers == ""
		if !ok || !ok2 || !v2 && !listed(controllers, "memory") {
			continue
		}
		point, below, ok := mountedCgroup(mounts, own, v2)
		if !ok {
			continue
		}
		for dir := path.Join(point, below); ; dir = path.Dir(dir) {
			all = append(all, memoryCgroup{dir, v2})
			if dir == point {
				break
			}
		}
	}
	return all
}

// mountedCgroup returns where the hierarchy is mounted, and the way from there
// to the cgroup own. In a container the mount's root may be the container's
// cgroup, and own be seen from outside or from inside.
func mountedCgroup(mounts, own string, v2 bool) (point, below string, ok bool) {
	shortest := ""
	for line := range strings.Lines(mounts) {
		root, at, this := cgroupMount(line, v2)
		if !this {
			continue
		}
		way, inside := wayTo(own, root)
		// The mount that shows most of what is above us.
		if inside && (!ok || len(root) < len(shortest)) {
			point, below, ok, shortest = at, way, true, root
		}
	}
	return point, below, ok
}

// cgroupMount reads one line of mountinfo:
//
//	36 35 0:31 /root /mount/point rw,relatime shared:1 - cgroup cgroup rw,memory
func cgroupMount(line string, v2 bool) (root, point string, ok bool) {
	mount, fs, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
	m, f := strings.Split(mount, " "), strings.Split(fs, " ")
	if !ok || len(m) < 6 || len(f) < 3 {
		return "", "", false
	}
	if v2 && f[0] != "cgroup2" || !v2 && (f[0] != "cgroup" || !listed(f[2], "memory")) {
		return "", "", false
	}
	root, point = unescape(m[3]), unescape(m[4])
	return root, path.Clean(point), path.IsAbs(root) && path.IsAbs(point)
}

// wayTo returns the way from root to own.
func wayTo(own, root string) (way string, ok bool) {
	// A cgroup outside of the namespace begins with "/..": what is seen of it
	// from here is not known.
	if !path.IsAbs(own) || strings.Contains(own+"/", "/../") || strings.Contains(root+"/", "/../") {
		return "", false
	}
	own, root = path.Clean(own), path.Clean(root)
	if root == "/" {
		return own, true
	}
	way, ok = strings.CutPrefix(own, root)
	return way, ok && (way == "" || way[0] == '/')
}

// listed reports whether word is one of a list separated by commas.
func listed(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// unescape turns the kernel's \040 and the like back into bytes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
