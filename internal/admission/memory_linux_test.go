package admission

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// Lines of mountinfo as found on real machines.
const (
	mountsV1 = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:10 master:3 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
	mountsV2 = `24 22 0:22 / /sys rw,nosuid - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,memory_recursiveprot
`
	mountsDockerV1 = `
737 736 0:32 /docker/c0ffee /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:15 - cgroup cgroup rw,memory
738 736 0:29 /docker/c0ffee /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu
`
)

func TestMemoryCgroups(t *testing.T) {
	v1 := func(dirs ...string) (all []memoryCgroup) {
		for _, d := range dirs {
			all = append(all, memoryCgroup{dir: d})
		}
		return all
	}
	v2 := func(dirs ...string) (all []memoryCgroup) {
		for _, d := range dirs {
			all = append(all, memoryCgroup{dir: d, v2: true})
		}
		return all
	}
	for _, test := range []struct {
		name, self, mounts string
		want               []memoryCgroup
	}{
		{"version 2, a systemd unit", "0::/system.slice/heartwheel.service\n", mountsV2,
			v2("/sys/fs/cgroup/system.slice/heartwheel.service", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup")},
		{"version 2, a container with its own namespace", "0::/\n", mountsV2, v2("/sys/fs/cgroup")},
		{"version 2, a container without one, host path visible", "0::/docker/c0ffee\n", mountsV2,
			v2("/sys/fs/cgroup/docker/c0ffee", "/sys/fs/cgroup/docker", "/sys/fs/cgroup")},
		{"version 1 beside an empty version 2", "9:name=systemd:/\n4:memory:/a/b\n1:cpu:/a\n0::/\n", mountsV1,
			append(v1("/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"),
				v2("/sys/fs/cgroup/unified")...)},
		{"version 1, root", "4:memory:/\n", mountsV1, v1("/sys/fs/cgroup/memory")},
		{"version 1, a container: the mount's root is its cgroup", "4:memory:/docker/c0ffee\n", mountsDockerV1,
			v1("/sys/fs/cgroup/memory")},
		{"version 1, a cgroup inside a container", "4:memory:/docker/c0ffee/x\n", mountsDockerV1,
			v1("/sys/fs/cgroup/memory/x", "/sys/fs/cgroup/memory")},
		{"another container's name begins alike", "4:memory:/docker/c0ffee2\n", mountsDockerV1, nil},
		{"moved out of its namespace", "0::/../other\n", mountsV2, nil},
		{"mounted from outside of its namespace", "0::/\n",
			"30 24 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", nil},
		{"memory together with others", "3:cpu,memory:/a\n", "5 4 0:1 / /c rw - cgroup x rw,cpu,memory\n",
			v1("/c/a", "/c")},
		{"spaces", "0::/a b\n", `5 4 0:1 / /mnt/my\040cgroups rw - cgroup2 x rw` + "\n",
			v2("/mnt/my cgroups/a b", "/mnt/my cgroups")},
		{"a colon in the name", "0::/a:b\n", mountsV2, v2("/sys/fs/cgroup/a:b", "/sys/fs/cgroup")},
		{"two mounts: the one that shows more", "0::/a/b\n",
			"5 4 0:1 /a /small rw - cgroup2 x rw\n6 4 0:1 / /all rw - cgroup2 x rw\n" +
				"7 4 0:1 /a/b /own rw - cgroup2 x rw\n",
			v2("/all/a/b", "/all/a", "/all")},
		{"not mounted", "0::/a\n4:memory:/a\n", "24 22 0:22 / /sys rw - sysfs sysfs rw\n", nil},
		{"memory as another word", "4:memoryx,y:/a\n", mountsV1, nil},
		{"nothing", "", "", nil},
		{"rubbish", "x\n::\n:\n0::\n4:memory\n", " - cgroup2\n1 2 3 4 5 6 - cgroup2 x y\n", nil},
	} {
		if got := memoryCgroups(test.self, test.mounts); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func FuzzMemoryCgroups(f *testing.F) {
	f.Add("0::/a/../b\n4:memory:/x\n", mountsV1)
	f.Add("0::/system.slice/x.service\n", mountsV2)
	f.Add("4:memory:/docker/c0ffee\n", mountsDockerV1)
	f.Add("0::/\n", `1 2 0:1 /\0571 /\12 a - cgroup2 x y`)
	f.Fuzz(func(t *testing.T, self, mounts string) {
		for _, g := range memoryCgroups(self, mounts) {
			if !filepath.IsAbs(g.dir) || filepath.Clean(g.dir) != g.dir {
				t.Errorf("%q is not a clean path", g.dir)
			}
		}
	})
}

// writeCgroup makes the files of a cgroup.
func writeCgroup(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const unlimited = "9223372036854771712\n"

func TestCgroupMeter(t *testing.T) {
	for _, test := range []struct {
		name       string
		v2         bool
		files      map[string]string
		use, limit uint64
		wrong      string // in the error
	}{
		{"version 2", true, map[string]string{"memory.max": "1000000\n", "memory.high": "max\n",
			"memory.current": "5000\n",
			"memory.stat":    "anon 3000\nfile 2000\ninactive_anon 1\ninactive_file 1200\nactive_file 800\n"},
			3800, 1000000, ""},
		{"version 2, memory.high", true, map[string]string{"memory.max": "max\n", "memory.high": "900\n",
			"memory.current": "500\n", "memory.stat": "anon 500\n"}, 500, 900, ""},
		{"version 2, no limit", true, map[string]string{"memory.max": "max\n", "memory.high": "max\n",
			"memory.current": "5\n", "memory.stat": ""}, 5, noLimit, ""},
		{"version 1", false, map[string]string{"memory.limit_in_bytes": "1000000\n", "memory.usage_in_bytes": "5000\n",
			"memory.stat": "cache 10\ninactive_file 7\ntotal_cache 10\ntotal_inactive_file 1200\n"}, 3800, 1000000, ""},
		{"version 1, no limit", false, map[string]string{"memory.limit_in_bytes": unlimited,
			"memory.usage_in_bytes": "5000\n", "memory.stat": ""}, 5000, noLimit, ""},
		{"more cache than use", false, map[string]string{"memory.limit_in_bytes": "9\n",
			"memory.usage_in_bytes": "5\n", "memory.stat": "\ntotal_inactive_file 6\n"}, 0, 9, ""},
		{"a limit that is none", false, map[string]string{"memory.limit_in_bytes": "-1\n",
			"memory.usage_in_bytes": "5\n", "memory.stat": ""}, 0, 0, "is not a limit"},
		{"a use that is none", false, map[string]string{"memory.limit_in_bytes": "1\n",
			"memory.usage_in_bytes": "x\n", "memory.stat": ""}, 0, 0, "not a number"},
	} {
		m, err := newCgroupMeter(memoryCgroup{writeCgroup(t, t.TempDir(), test.files), test.v2})
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		use, limit, err := m.Read()
		if use != test.use || limit != test.limit || (err != nil) != (test.wrong != "") || err != nil &&
			!strings.Contains(err.Error(), test.wrong) {
			t.Errorf("%s: %d of %d, %v; want %d of %d", test.name, use, limit, err, test.use, test.limit)
		}
		m.Close()
		if _, _, err := m.Read(); err == nil {
			t.Errorf("%s: read after close", test.name)
		}
	}
}

func TestCgroupMeters(t *testing.T) {
	root := t.TempDir()
	full := func(limit string) map[string]string {
		return map[string]string{"memory.limit_in_bytes": limit, "memory.usage_in_bytes": "5\n", "memory.stat": "",
			"memory.use_hierarchy": "1\n"}
	}
	notCounting := full("4\n")
	notCounting["memory.use_hierarchy"] = "0\n"
	chain := func(texts ...map[string]string) (all []memoryCgroup) {
		dir := root
		for _, files := range texts {
			dir = writeCgroup(t, filepath.Join(dir, "x"), files)
			all = append([]memoryCgroup{{dir: dir}}, all...)
		}
		root = t.TempDir()
		return all
	}
	for _, test := range []struct {
		name   string
		groups []memoryCgroup
		want   []uint64 // limits
	}{
		{"each that has a limit, the innermost first", chain(full(unlimited), full("30\n"), full(unlimited),
			full("20\n")), []uint64{20, 30}},
		{"none", chain(full(unlimited), full(unlimited)), nil},
		{"one without the files", chain(full("9\n"), nil, full("8\n")), []uint64{8, 9}},
		{"a parent that does not count its children", chain(full("3\n"), notCounting, full("5\n")), []uint64{5}},
		{"its own may well not", chain(full("9\n"), notCounting), []uint64{4, 9}},
	} {
		meters, err := cgroupMeters(test.groups)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		var got []uint64
		for _, m := range meters {
			_, limit, _ := m.Read()
			got = append(got, limit)
			m.Close()
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: limits %v, want %v", test.name, got, test.want)
		}
	}
	bad := chain(full("nonsense\n"))
	if meters, err := cgroupMeters(bad); err == nil || len(meters) != 0 || !strings.Contains(err.Error(), bad[0].dir) {
		t.Errorf("a limit that cannot be read: %v, %v", meters, err)
	}
}

// TestProcessMeter: the setting counts this process and its sockets.
func TestProcessMeter(t *testing.T) {
	conns := int64(0)
	meters, err := memoryMeters(100<<20, func() int64 { return conns })
	if err != nil || len(meters) == 0 {
		t.Fatalf("%v, %v", meters, err)
	}
	m := meters[len(meters)-1]
	defer func() {
		for _, m := range meters {
			m.Close()
		}
	}()
	use, limit, err := m.Read()
	statm, _ := os.ReadFile("/proc/self/statm")
	pages, _ := strconv.ParseFloat(strings.Fields(string(statm))[1], 64)
	rss := pages * float64(os.Getpagesize())
	if err != nil || limit != 100<<20 || m.Name() != "configured" || float64(use) < rss/2 || float64(use) > rss*2 {
		t.Errorf("%s: %d of %d, %v; resident are %.0f", m.Name(), use, limit, err, rss)
	}
	conns = 1 << 20
	if more, _, _ := m.Read(); more < use/2+4*gib {
		t.Errorf("with a million connections %d, without %d", more, use)
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]uint64{"0\n": 0, "12": 12, "12 34": 12, "max\n": noLimit,
		"9223372036854771712\n": noLimit, "99999999999999999999999": noLimit} {
		if got, ok := parseBytes([]byte(text)); got != want || !ok {
			t.Errorf("%q is %d, %v, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "-1", "x", "\n"} {
		if got, ok := parseBytes([]byte(text)); ok {
			t.Errorf("%q is %d", text, got)
		}
	}
}

// TestSampleAllocatesNothing: with every kind of meter.
func TestSampleAllocatesNothing(t *testing.T) {
	v1 := writeCgroup(t, t.TempDir(), map[string]string{"memory.limit_in_bytes": "1000000\n",
		"memory.usage_in_bytes": "5000\n", "memory.stat": "total_inactive_file 1\n"})
	v2 := writeCgroup(t, t.TempDir(), map[string]string{"memory.max": "10000000000\n", "memory.high": "max\n",
		"memory.current": "5000\n", "memory.stat": "anon 1\ninactive_file 1\n"})
	meters, err := memoryMeters(1<<30, func() int64 { return 1 })
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []memoryCgroup{{v1, false}, {v2, true}} {
		m, err := newCgroupMeter(g)
		if err != nil {
			t.Fatal(err)
		}
		meters = append(meters, m)
	}
	m := newMemory(meters, 1, slog.New(slog.DiscardHandler), new(fakeHolders), func() {})
	if n := testing.AllocsPerRun(1000, m.sample); n != 0 {
		t.Errorf("a sample makes %g allocations", n)
	}
	if len(m.meters) < 3 {
		t.Error("a meter was dropped")
	}
	go m.run()
	m.close()
}

func BenchmarkSample(b *testing.B) {
	meters, err := memoryMeters(1<<30, func() int64 { return 1 })
	if err != nil {
		b.Fatal(err)
	}
	// A real one, whatever its limit, so that the kernel's own cost counts.
	self, _ := os.ReadFile("/proc/self/cgroup")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for _, g := range memoryCgroups(string(self), string(mounts)) {
		if m, err := newCgroupMeter(g); err == nil {
			meters = append(meters, m)
			break
		}
	}
	m := newMemory(meters, 1, slog.New(slog.DiscardHandler), new(fakeHolders), func() {})
	b.ReportAllocs()
	for b.Loop() {
		m.sample()
	}
	b.ReportMetric(float64(len(m.meters)), "meters")
	go m.run()
	m.close()
}

func BenchmarkMemoryAdmit(b *testing.B) {
	m := fakeMemory(os.Stderr, nothing, newFakeMeter(0, noLimit-1))
	for b.Loop() {
		m.admit()
	}
}
