package loadtest

import (
	"net/netip"
	"testing"
)

func TestSources(t *testing.T) {
	loop, far := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		target netip.Addr
		n      int
		want   string // empty: the kernel's choice
	}{
		{loop, 1, "127.0.0.0/26"}, {loop, 62 * perSource, "127.0.0.0/26"}, {loop, 62*perSource + 1, "127.0.0.0/25"},
		{loop, 10_000_000, "127.0.0.0/22"}, {far, 100_000, ""}, {netip.MustParseAddr("::1"), 100_000, ""},
	} {
		got := defaultSources(c.target, c.n)
		if text := Table.ByKey("source").Text(&Plan{Sources: got}); text != c.want {
			t.Errorf("%d to %s come from %q, want %q", c.n, c.target, text, c.want)
		}
	}
	for _, c := range []struct {
		text        string
		limit       int
		first, last string
		n           int
	}{
		{"127.0.0.0/26", 1000, "127.0.0.1", "127.0.0.62", 62},
		{"127.0.0.77/26", 1000, "127.0.0.65", "127.0.0.126", 62},
		{"127.0.0.0/8", 5, "127.0.0.1", "127.0.0.5", 5},
		{"10.0.0.4/31", 1000, "10.0.0.4", "10.0.0.5", 2},
		{"10.0.0.4", 1000, "10.0.0.4", "10.0.0.4", 1},
		{"fd00::/126", 1000, "fd00::", "fd00::3", 4},
	} {
		p, err := parseSource(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		got := sourceAddrs([]netip.Prefix{p}, c.limit)
		if len(got) != c.n || got[0].String() != c.first || got[len(got)-1].String() != c.last {
			t.Errorf("%s: %v, want %d from %s to %s", c.text, got, c.n, c.first, c.last)
		}
	}
	if got := sourceAddrs([]netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.0.8/30")},
		9); len(got) != 3 {
		t.Errorf("two ranges give %v", got)
	}
	if n := portRange(); n < 1 || n > 65536 {
		t.Errorf("%d ports", n)
	}
}
