package doctor

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	procLimits = "Limit                     Soft Limit           Hard Limit           Units     \n" +
		"Max open files            1024                 1048576              files     \n" +
		"Max locked memory         8388608              8388608              bytes     \n"
	procMeminfo  = "MemTotal:       24684096 kB\nMemFree:         3265836 kB\nMemAvailable:   24000000 kB\n"
	procSockstat = "sockets: used 12\nTCP: inuse 1 orphan 0 tw 2 alloc 1 mem 125\nUDP: inuse 0 mem 0\n"
	procTCP      = "  sl  local_address rem_address   st\n" +
		"   0: 00000000:07E8 00000000:0000 0A 00000000:00000000\n"
)

// tree returns the files of a server with 24 GB and usual limits. changes are
// pairs of a path and its content, "-" for no such file.
func tree(changes ...string) fstest.MapFS {
	files := map[string]string{
		"proc/self/limits":                           procLimits,
		"proc/self/cgroup":                           "0::/system.slice/heartwheel.service\n",
		"proc/meminfo":                               procMeminfo,
		"proc/net/sockstat":                          procSockstat,
		"proc/net/tcp":                               procTCP,
		"proc/sys/fs/nr_open":                        "1048576\n",
		"proc/sys/fs/file-max":                       "9223372036854775807\n",
		"proc/sys/fs/file-nr":                        "449\t0\t9223372036854775807\n",
		"proc/sys/fs/epoll/max_user_watches":         "5491533\n",
		"proc/sys/net/ipv4/tcp_mem":                  "287901\t383869\t575802\n",
		"proc/sys/net/ipv4/ip_local_port_range":      "32768\t60999\n",
		"proc/sys/net/ipv4/ip_local_reserved_ports":  "\n",
		"proc/sys/net/core/somaxconn":                "4096\n",
		"proc/sys/net/ipv4/tcp_max_syn_backlog":      "2048\n",
		"proc/sys/net/ipv4/tcp_syncookies":           "1\n",
		"proc/sys/net/ipv4/tcp_max_tw_buckets":       "131072\n",
		"sys/fs/cgroup/system.slice/memory.max":      "max\n",
		"sys/fs/cgroup/system.slice/memory.current":  "100\n",
		"proc/sys/net/netfilter/nf_conntrack_max":    "-",
		"sys/fs/cgroup/memory/memory.limit_in_bytes": "-",
		"sys/fs/cgroup/memory/memory.usage_in_bytes": "-",
		"proc/sys/net/netfilter/nf_conntrack_count":  "-",
		"sys/fs/cgroup/system.slice/memory.stat":     "anon 5\ninactive_file 0\n",
	}
	for i := 0; i < len(changes); i += 2 {
		files[changes[i]] = changes[i+1]
	}
	fsys := fstest.MapFS{}
	for name, text := range files {
		if text != "-" {
			fsys[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return fsys
}

func limit(n string) string {
	return "Max open files            1024                 " + n + "     files     \n"
}

const (
	limits    = "proc/self/limits"
	tracked   = "proc/sys/net/netfilter/nf_conntrack_max"
	count     = "proc/sys/net/netfilter/nf_conntrack_count"
	portRange = "proc/sys/net/ipv4/ip_local_port_range"
)

func finding(t *testing.T, r Report, name string) Finding {
	t.Helper()
	for _, f := range r.Findings {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no check %s", name)
	return Finding{}
}

func TestChecks(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, c := range []struct {
		test   string
		plan   Plan
		tree   fstest.MapFS
		name   string
		status string
		have   string
		need   string
		fix    string // parts of the fixes, separated by a bar; empty: none
		why    string // part of it
	}{
		{"room to the last descriptor", Plan{Connections: 19600, Role: Server}, tree(limits, limit("20000")),
			"descriptors", OK, "20,000", "19,999 a process", "", ""},
		{"one too many", Plan{Connections: 19601, Role: Server}, tree(limits, limit("20000")),
			"descriptors", Wrong, "20,000", "20,001 a process",
			"ulimit -Hn 20001 |LimitNOFILE=20001 |--processes 2 ", "up to 19,601 connections"},
		{"more processes", Plan{Connections: 1_000_000, Role: Client, Processes: 51}, tree(limits, limit("20000")),
			"descriptors", Wrong, "20,000", "20,008 a process", "--processes 52   # for heartwheel loadtest", ""},
		{"enough processes", Plan{Connections: 1_000_000, Role: Client, Processes: 52}, tree(limits, limit("20000")),
			"descriptors", OK, "20,000", "19,623 a process", "", ""},
		{"one server of many clients", Plan{Connections: 100_000, Role: Both, Processes: 10, ServerProcesses: 1},
			tree(limits, limit("20000")),
			"descriptors", Wrong, "20,000", "102,040 a process",
			"--processes 6   # for heartwheel loadtest, and 6 servers", ""},
		{"a tiny limit", Plan{Connections: 10, Role: Server}, tree(limits, limit("64")),
			"descriptors", Wrong, "64", "74 a process", "ulimit -Hn 74 ", ""},
		{"no limit", Plan{Connections: 5_000_000, Role: Server}, tree(limits, limit("unlimited")),
			"descriptors", OK, "unlimited", "5,102,040 a process", "", ""},
		{"no file", Plan{Connections: 10, Role: Server}, tree(limits, "-"),
			"descriptors", Unknown, "?", "74 a process", "", "/proc/self/limits: file does not exist."},
		{"nothing of files", Plan{Connections: 10, Role: Server}, tree(limits, "Max cpu time unlimited\n"),
			"descriptors", Unknown, "?", "", "", `has no line "Max open files"`},
		{"not a number", Plan{Connections: 10, Role: Server}, tree(limits, limit("many")),
			"descriptors", Unknown, "?", "", "", `"many" is not a number`},

		{"nr_open", Plan{Connections: 1_000_000, Role: Server}, tree(limits, limit("20000")),
			"fs.nr_open", OK, "1,048,576", "1,020,408", "", ""},
		{"nr_open too low", Plan{Connections: 2_000_000, Role: Server}, tree(limits, limit("20000")),
			"fs.nr_open", Wrong, "1,048,576", "2,040,816", "sysctl -w fs.nr_open=2040816", ""},
		{"nr_open does not matter", Plan{Connections: 2_000_000, Role: Server}, tree(limits, limit("unlimited")),
			"fs.nr_open", OK, "1,048,576", "2,040,816", "", ""},

		{"file-max", Plan{Connections: 1_000_000, Role: Both}, tree(),
			"fs.file-max", OK, "unlimited", "2,000,577", "", ""},
		{"file-max too low", Plan{Connections: 1_000_000, Role: Both}, tree("proc/sys/fs/file-max", "2000576\n"),
			"fs.file-max", Wrong, "2,000,576", "2,000,577", "sysctl -w fs.file-max=2100000",
			"449 are open now, and 2,000,000 sockets"},
		{"file-max of a server alone", Plan{Connections: 1_000_000, Role: Server},
			tree("proc/sys/fs/file-max", "2000576\n"),
			"fs.file-max", OK, "2,000,576", "1,000,577", "", ""},
		{"both ends of clients on loopback", Plan{Connections: 1_000_000, Role: Client, Target: "127.0.0.1:9000"},
			tree(),
			"fs.epoll.max_user_watches", OK, "5,491,533", "2,000,000", "", "both ends"},
		{"watches too few", Plan{Connections: 3_000_000, Role: Both}, tree(),
			"fs.epoll.max_user_watches", Wrong, "5,491,533", "6,000,000", "sysctl -w fs.epoll.max_user_watches=6000000",
			""},
		{"watches not a number", Plan{Connections: 3, Role: Both}, tree("proc/sys/fs/epoll/max_user_watches", "\n"),
			"fs.epoll.max_user_watches", Unknown, "?", "6", "", "unexpected format"},

		{"memory of pairs", Plan{Connections: 1_000_000, Role: Both}, tree(),
			"memory", OK, "24.6 GB", "9.6 GB", "", "8.1 kB"},
		{"memory of a server", Plan{Connections: 1_000_000, Role: Server}, tree(),
			"memory", OK, "24.6 GB", "4.9 GB", "", "3.9 kB in the kernel and 1 kB in the server"},
		{"memory of clients", Plan{Connections: 1_000_000, Role: Client, Processes: 50}, tree(),
			"memory", OK, "24.6 GB", "5.4 GB", "", "0.5 kB in the load test"},
		{"too little memory", Plan{Connections: 3_000_000, Role: Both}, tree(),
			"memory", Wrong, "24.6 GB", "28.8 GB", "-c 2555k ", "MemAvailable"},
		{"no memory", Plan{Connections: 10_000, Role: Both}, tree("proc/meminfo", "MemAvailable: 1000 kB\n"),
			"memory", Wrong, "1.02 MB", "136 MB", "free -h", ""},
		{"an old kernel", Plan{Connections: 10_000, Role: Both}, tree("proc/meminfo", "MemFree: 1000 kB\n"),
			"memory", Unknown, "?", "136 MB", "", `has no line "MemAvailable:"`},
		{"a group of version 2", Plan{Connections: 100_000, Role: Server},
			tree("sys/fs/cgroup/system.slice/memory.max", "500000000", "sys/fs/cgroup/system.slice/memory.current",
				"90000000", "sys/fs/cgroup/system.slice/memory.stat", "anon 7\ninactive_file 40000000\n"),
			"memory", Wrong, "450 MB", "510 MB", "echo 573M > /sys/fs/cgroup/system.slice/memory.max|-c 87k ",
			"the control group of this process allows: /sys/fs/cgroup/system.slice/memory.max"},
		{"a group that is larger than the machine", Plan{Connections: 100_000, Role: Server},
			tree("sys/fs/cgroup/system.slice/memory.max", "99000000000000"),
			"memory", OK, "24.6 GB", "510 MB", "", "MemAvailable"},
		{"a container of version 2", Plan{Connections: 100_000, Role: Server},
			tree("proc/self/cgroup", "0::/\n", "sys/fs/cgroup/memory.max", "256000000", "sys/fs/cgroup/memory.current",
				"1000000"),
			"memory", Wrong, "255 MB", "510 MB", "-c 47k", "/sys/fs/cgroup/memory.max"},
		{"a container beside its group", Plan{Connections: 100_000, Role: Server},
			tree("proc/self/cgroup", "0::/../other\n", "sys/fs/cgroup/memory.max", "256000000",
				"sys/fs/cgroup/memory.current", "1000000"),
			"memory", Wrong, "255 MB", "510 MB", "-c 47k", ""},
		{"a container of version 1, named as outside", Plan{Connections: 100_000, Role: Server},
			tree("proc/self/cgroup", "9:cpu:/\n4:hugetlb,memory:/docker/4f2a\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes", "256000000", "sys/fs/cgroup/memory/memory.usage_in_bytes",
				"6000000"),
			"memory", Wrong, "250 MB", "510 MB", "echo 493M > /sys/fs/cgroup/memory/memory.limit_in_bytes", ""},
		{"version 1 without a limit", Plan{Connections: 100_000, Role: Server},
			tree("proc/self/cgroup", "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes",
				"9223372036854771712", "sys/fs/cgroup/memory/memory.usage_in_bytes", "6000000"),
			"memory", OK, "24.6 GB", "510 MB", "", "MemAvailable"},

		{"tcp_mem", Plan{Connections: 1_000_000, Role: Both}, tree(),
			"net.ipv4.tcp_mem", OK, "575,802 pages", "250,125 pages", "", ""},
		{"tcp_mem of a small machine", Plan{Connections: 100_000, Role: Server},
			tree("proc/sys/net/ipv4/tcp_mem", "10 20 24576"),
			"net.ipv4.tcp_mem", Wrong, "24,576 pages", "25,125 pages", `sysctl -w net.ipv4.tcp_mem="13000 17333 26000"`,
			""},
		{"tcp_mem in another form", Plan{Connections: 100_000, Role: Server},
			tree("proc/sys/net/ipv4/tcp_mem", "10 20"),
			"net.ipv4.tcp_mem", Unknown, "?", "", "", "unexpected format"},

		{"one address", Plan{Connections: 14_116, Role: Client}, tree(),
			"ports", OK, "1 × 28,232", "14,116", "", "(32768 to 60999)"},
		{"more than half of a range", Plan{Connections: 14_117, Role: Client}, tree(),
			"ports", OK, "1 × 28,232", "14,117", "", "use 2 addresses"},
		{"a full range", Plan{Connections: 28_232, Role: Client}, tree(), "ports", OK, "1 × 28,232", "28,232", "", ""},
		{"beyond the range", Plan{Connections: 28_233, Role: Client, Target: "10.0.0.1:9000"}, tree(),
			"ports", Wrong, "1 × 28,232", "28,233",
			"--source PREFIX   # for heartwheel loadtest, at least 3 addresses|" +
				`sysctl -w net.ipv4.ip_local_port_range="1024 65535"`, ""},
		{"beyond any range", Plan{Connections: 1_000_000, Role: Client}, tree(),
			"ports", Wrong, "1 × 28,232", "1,000,000", "at least 71 addresses", ""},
		{"several ranges of addresses", Plan{Connections: 100_000, Role: Client,
			Sources: []netip.Prefix{prefix("10.0.0.8/29"), prefix("10.0.1.7/32"), prefix("10.0.2.0/31")}}, tree(),
			"ports", OK, "9 × 28,232", "100,000", "", "10.0.0.8/29 10.0.1.7/32 10.0.2.0/31"},
		{"IPv6", Plan{Connections: 100_000, Role: Client, Sources: []netip.Prefix{prefix("fd00::/64")}}, tree(),
			"ports", OK, "1,099,511,627,776 × 28,232", "100,000", "", ""},
		{"loopback by itself", Plan{Connections: 1_000_000, Role: Both}, tree(),
			"ports", OK, "126 × 28,232", "1,000,000", "", "127.0.0.0/25, the load test's default"},
		{"one address of loopback", Plan{Connections: 50_000, Role: Client, Target: "[::1]:9000",
			Sources: []netip.Prefix{prefix("127.0.0.1/32")}}, tree(),
			"ports", Wrong, "1 × 28,232", "50,000", "--source 127.0.0.0/26   # for heartwheel loadtest|sysctl -w net",
			""},
		{"reserved ports", Plan{Connections: 10_000, Role: Client},
			tree("proc/sys/net/ipv4/ip_local_reserved_ports", "80,32768,40000-49999,60990-65000"),
			"ports", OK, "1 × 18,221", "10,000", "", "less 10,011 reserved"},
		{"a small range", Plan{Connections: 10_000, Role: Both}, tree(portRange, "40000 40099"),
			"ports", Wrong, "62 × 100", "10,000", "--source 127.0.0.0/24 ", ""},
		{"no range", Plan{Connections: 10_000, Role: Both}, tree(portRange, "-"),
			"ports", Unknown, "?", "10,000", "", "ip_local_port_range: file does not exist"},

		{"no conntrack", Plan{Connections: 10, Role: Server}, tree(),
			"nf_conntrack_max", OK, "not loaded", "-", "", ""},
		{"enough conntrack", Plan{Connections: 262_000, Role: Server}, tree(tracked, "262144", count, "144"),
			"nf_conntrack_max", OK, "262,144", "262,144", "", "144 are in use"},
		{"too little conntrack", Plan{Connections: 262_001, Role: Server}, tree(tracked, "262144", count, "144"),
			"nf_conntrack_max", Wrong, "262,144", "262,145", "sysctl -w net.netfilter.nf_conntrack_max=270000", ""},
		{"conntrack without a limit", Plan{Connections: 262_001, Role: Server}, tree(tracked, "0", count, "144"),
			"nf_conntrack_max", OK, "unlimited", "", "", ""},
		{"conntrack that tracks nothing", Plan{Connections: 1_000_000, Role: Server},
			tree(tracked, "262144", count, "0", "proc/net/tcp6", "sl local rem st\n 0: a b 0A\n 1: a b 01\n"),
			"nf_conntrack_max", OK, "262,144", "", "", "no firewall rule uses connection tracking"},
		{"conntrack that may track", Plan{Connections: 1_000_000, Role: Server}, tree(tracked, "262144", count, "0"),
			"nf_conntrack_max", Unknown, "262,144", "", "", "No connection is open"},
		{"conntrack without a count", Plan{Connections: 1_000_000, Role: Server}, tree(tracked, "262144"),
			"nf_conntrack_max", Unknown, "262,144", "", "", "The number in use is unknown"},

		{"somaxconn", Plan{Connections: 1_000_000, Role: Server, ConnectRate: 20_480}, tree(),
			"net.core.somaxconn", OK, "4,096", "4,096", "", ""},
		{"somaxconn too small", Plan{Connections: 1_000_000, Role: Server, ConnectRate: 20_481}, tree(),
			"net.core.somaxconn", Wrong, "4,096", "4,097", "sysctl -w net.core.somaxconn=4100 ", "20,481 a second"},
		{"somaxconn of an old kernel", Plan{Connections: 1_000_000, Role: Server},
			tree("proc/sys/net/core/somaxconn", "128"),
			"net.core.somaxconn", Wrong, "128", "4,000", "sysctl -w net.core.somaxconn=4096 ", ""},
		{"few connections", Plan{Connections: 100, Role: Server}, tree("proc/sys/net/core/somaxconn", "128"),
			"net.core.somaxconn", OK, "128", "100", "", ""},
		{"shared among servers", Plan{Connections: 1_000_000, Role: Server, Processes: 40},
			tree("proc/sys/net/core/somaxconn", "128"),
			"net.core.somaxconn", OK, "128", "100", "", ""},
		{"with SYN cookies", Plan{Connections: 1_000_000, Role: Server},
			tree("proc/sys/net/ipv4/tcp_max_syn_backlog", "1"),
			"net.ipv4.tcp_max_syn_backlog", OK, "1", "any", "", "SYN cookies are on"},
		{"without SYN cookies", Plan{Connections: 1_000_000, Role: Server},
			tree("proc/sys/net/ipv4/tcp_syncookies", "0"),
			"net.ipv4.tcp_max_syn_backlog", Wrong, "2,048", "5,334",
			"sysctl -w net.ipv4.tcp_syncookies=1|sysctl -w net.ipv4.tcp_max_syn_backlog=5400", ""},
		{"SYN cookies unknown", Plan{Connections: 1_000_000, Role: Server},
			tree("proc/sys/net/ipv4/tcp_syncookies", "-"),
			"net.ipv4.tcp_max_syn_backlog", Unknown, "2,048", "", "", "tcp_syncookies: file does not exist"},
		{"closed connections", Plan{Connections: 1_000_000, Role: Server}, tree(),
			"net.ipv4.tcp_max_tw_buckets", OK, "131,072", "any", "", "with a reset"},
	} {
		t.Run(c.test, func(t *testing.T) {
			if err := c.plan.Validate(); err != nil {
				t.Fatal(err)
			}
			r := Check(c.tree, c.plan)
			f := finding(t, r, c.name)
			if f.Status != c.status || c.have != "" && f.Have != c.have && f.Status != Unknown || c.need != "" &&
				f.Need != c.need {
				t.Errorf("got %s, have %q, need %q; want %s, %q, %q", f.Status, f.Have, f.Need, c.status, c.have,
					c.need)
			}
			if !strings.Contains(f.Why, c.why) || f.Why == "" {
				t.Errorf("why is %q, want %q", f.Why, c.why)
			}
			fixes := strings.Join(f.Fix, "|") + "|"
			for part := range strings.SplitSeq(c.fix, "|") {
				if !strings.Contains(fixes, part) {
					t.Errorf("the fix is %q, want %q", fixes, part)
				}
			}
			if (c.status == Wrong) != (len(f.Fix) > 0) {
				t.Errorf("%s with the fix %q", f.Status, f.Fix)
			}
			if c.status == Wrong && r.OK() {
				t.Error("the report is OK")
			}
		})
	}
}

// What a fix sets has to be enough.
func TestFixesMend(t *testing.T) {
	p := Plan{Connections: 2_000_000, Role: Both}
	files := tree(limits, limit("2040816"), "proc/sys/fs/nr_open", "2040816", "proc/sys/fs/file-max", "4100000",
		"proc/sys/net/ipv4/tcp_mem", "255000 340000 510000",
		tracked, "2100000", count, "144", "proc/sys/fs/epoll/max_user_watches", "4000000")
	if r := Check(files, p); !r.OK() {
		t.Errorf("%q", r.Problems())
	}
	small := tree(limits, limit("20000"), "proc/sys/fs/nr_open", "20000", "proc/sys/fs/file-max", "20000",
		"proc/sys/net/ipv4/tcp_mem", "1 2 3",
		tracked, "1000", count, "144", "proc/sys/fs/epoll/max_user_watches", "4")
	r := Check(small, p)
	all := strings.Join(r.Problems(), "\n")
	for _, fix := range []string{"ulimit -Hn 2040816", "fs.nr_open=2040816", "fs.file-max=4100000",
		`tcp_mem="255000 340000 510000"`, "nf_conntrack_max=2100000", "max_user_watches=4000000"} {
		if !strings.Contains(all, fix) {
			t.Errorf("no %s in\n%s", fix, all)
		}
	}
	if len(r.Problems()) != 6 {
		t.Errorf("%d problems:\n%s", len(r.Problems()), all)
	}
}

func TestChecksOfRoles(t *testing.T) {
	names := func(role string) string {
		var list []string
		for _, f := range Check(tree(), Plan{Connections: 100, Role: role}).Findings {
			list = append(list, f.Name)
		}
		return strings.Join(list, " ")
	}
	if got := names(Server); strings.Contains(got, "ports") || !strings.Contains(got, "somaxconn") {
		t.Errorf("server: %s", got)
	}
	if got := names(Client); !strings.Contains(got, "ports") || strings.Contains(got,
		"somaxconn") || strings.Contains(got, "syn") {
		t.Errorf("client: %s", got)
	}
	if got := names(Both); len(strings.Fields(got)) != len(checks) {
		t.Errorf("both: %s", got)
	}
}

func TestFits(t *testing.T) {
	for _, c := range []struct {
		plan Plan
		tree fstest.MapFS
		want int
	}{
		{Plan{Role: Both}, tree(limits, limit("20000")), 19_600},
		{Plan{Role: Client}, tree(limits, limit("100000")), 28_232},
		{Plan{Role: Both, Processes: 20}, tree(limits, limit("20000")), 392_000},
		{Plan{Role: Server, Processes: 100}, tree(limits, limit("20000"), tracked, "262144", count, "144"), 262_000},
		{Plan{Role: Server}, tree(limits, limit("10")), 0},
		{Plan{Role: Server}, tree("proc/sys/net/core/somaxconn", "1", "proc/sys/net/ipv4/tcp_syncookies", "0"),
			1_027_605},
	} {
		c.plan.Connections = 1000
		r := Check(c.tree, c.plan)
		if r.Fits == nil || *r.Fits != c.want {
			t.Errorf("%+v: %v, want %d", c.plan, r.Fits, c.want)
		}
		for _, n := range []int{c.want, c.want + 1} {
			if c.plan.Connections = n; n > 0 && (len(problemsThatScale(Check(c.tree, c.plan))) == 0) != (n == c.want) {
				t.Errorf("%+v: %q", c.plan, Check(c.tree, c.plan).Problems())
			}
		}
	}
	if r := Check(tree(limits, "-"), Plan{Connections: 1, Role: Server}); r.Fits != nil {
		t.Error("the limit of descriptors is unknown, but something fits")
	}
}

func problemsThatScale(r Report) (names []string) {
	for _, c := range checks {
		for _, f := range r.Findings {
			if f.Name == c.name && !c.fixed && f.Status == Wrong {
				names = append(names, f.Name)
			}
		}
	}
	return names
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		plan Plan
		want string // lines that it has to say, separated by a bar
	}{
		{Plan{Connections: 1, Role: Server}, ""},
		{Plan{Connections: 1, Role: Both, Processes: 5, ServerProcesses: 1, ConnectRate: 1, Target: "127.0.0.1:9000"},
			""},
		{Plan{}, "connections 0: must lie between 1 and 1,000,000,000|role \"\": must be server, client or both"},
		{Plan{Connections: -1, Processes: -1, ServerProcesses: -2, ConnectRate: -3, Role: "sever"},
			"connections -1: |processes -1: must lie between 1 and 100,000|server-processes -2: |connect-rate -3: |" +
				`role "sever"`},
		{Plan{Connections: 1, Role: Server, Target: "a:1"}, "target: applies to clients only"},
		{Plan{Connections: 1, Role: Server, Sources: []netip.Prefix{{}}}, "source: applies to clients only"},
	} {
		err := c.plan.Validate()
		var plan *PlanError
		if (c.want == "") != (err == nil) || err != nil && !errors.As(err, &plan) {
			t.Errorf("%+v: %v", c.plan, err)
			continue
		}
		if err == nil {
			continue
		}
		parts := strings.Split(c.want, "|")
		if len(parts) != len(plan.Lines) {
			t.Errorf("%+v: %q", c.plan, plan.Lines)
			continue
		}
		for i, part := range parts {
			if !strings.HasPrefix(plan.Lines[i], part) {
				t.Errorf("%+v: %q, want %q", c.plan, plan.Lines[i], part)
			}
		}
	}
}

func TestLoopback(t *testing.T) {
	for target, want := range map[string]bool{
		"127.0.0.1:9000": true, "127.3.2.1:1": true, "[::1]:9000": true, "localhost:9000": true,
		"10.0.0.1:9000": false, "[fe80::1]:9000": false, "example.org:9000": false, "": false,
	} {
		if p := (Plan{Role: Client, Target: target}); p.loopback() != want {
			t.Errorf("%q: %v", target, !want)
		}
	}
	if p := (Plan{Role: Both}); !p.loopback() {
		t.Error("both ends without a target are not on loopback")
	}
}

// On another operating system everything but the descriptor limit is unknown,
// which is not wrong.
func TestNotLinux(t *testing.T) {
	m := &machine{}
	m.notLinux(errors.New("checked on Linux only, not on plan9"))
	p := Plan{Connections: 1, Role: Both}.withDefaults()
	for _, c := range checks {
		f := c.run(m, &p)
		if c.name == "descriptors" {
			continue // what it is here
		}
		if f.Status != Unknown || !strings.Contains(f.Why,
			"Unknown: checked on Linux only, not on plan9.") && c.name != "nf_conntrack_max" {
			t.Errorf("%+v", f)
		}
		if f.Have != "?" {
			t.Errorf("%s: have %q", c.name, f.Have)
		}
	}
	if fits(m, p) != nil {
		t.Error("something fits")
	}
}

// denied is a tree whose files may not be read.
type denied struct{}

func (denied) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

func TestDenied(t *testing.T) {
	r := Check(denied{}, Plan{Connections: 5, Role: Both})
	if !r.OK() {
		t.Errorf("%q", r.Problems())
	}
	for _, f := range r.Findings {
		if f.Status != Unknown || !strings.Contains(f.Why, "permission denied") {
			t.Errorf("%+v", f)
		}
	}
}

// On the machine of the test: everything there is can be read.
func TestThisMachine(t *testing.T) {
	r := Check(nil, Plan{Connections: 1, Role: Both})
	for _, f := range r.Findings {
		if f.Status == "" || f.Have == "" || f.Need == "" || f.Why == "" || f.Fix == nil {
			t.Errorf("incomplete: %+v", f)
		}
		if runtime.GOOS == "linux" && strings.Contains(f.Why, "Unknown: ") {
			t.Logf("unknown here: %+v", f) // as in a container that hides it
		}
	}
	switch d := finding(t, r, "descriptors"); {
	case runtime.GOOS == "linux" && d.Status == Unknown:
		t.Errorf("%+v", d)
	case r.Fits != nil && *r.Fits < 1 && r.OK():
		t.Error("one connection is ok, but none fits")
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}
