package admission

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestParsePrefix(t *testing.T) {
	for _, test := range []struct{ in, out, complaint string }{
		{"192.0.2.7", "192.0.2.7/32", ""},
		{"192.0.2.0/24", "192.0.2.0/24", ""},
		{"0.0.0.0/0", "0.0.0.0/0", ""},
		{"2001:db8::1", "2001:db8::1/128", ""},
		{"2001:db8::/32", "2001:db8::/32", ""},
		{"::ffff:192.0.2.7", "192.0.2.7/32", ""},
		{"::ffff:192.0.2.0/120", "192.0.2.0/24", ""},
		{"::ffff:0:0/95", "", "wider than all IPv4"},
		{"192.0.2.7/24", "", "write 192.0.2.0/24 or 192.0.2.7"},
		{"2001:db8::1/32", "", "write 2001:db8::/32 or 2001:db8::1"},
		{"fe80::1%eth0", "", "leave out what follows %"},
		{"", "", "such as 192.0.2.7"},
		{"192.0.2", "", "such as 192.0.2.7"},
		{"192.0.2.0/33", "", "such as 192.0.2.7"},
		{"host.example", "", "such as 192.0.2.7"},
	} {
		p, err := ParsePrefix(test.in)
		if test.complaint == "" && (err != nil || p.String() != test.out) {
			t.Errorf("%q is %s, %v, want %s", test.in, p, err, test.out)
		}
		if test.complaint != "" && (err == nil || !strings.Contains(err.Error(), test.complaint)) {
			t.Errorf("%q is %s, %v, want an error with %q", test.in, p, err, test.complaint)
		}
	}
}

func FuzzParsePrefix(f *testing.F) {
	for _, seed := range []string{"192.0.2.7", "192.0.2.0/24", "::ffff:192.0.2.0/120", "2001:db8::/32", "fe80::1%a",
		"::/0", "::ffff:0:0/96", "1/1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePrefix(text)
		if err != nil {
			if p.IsValid() || err.Error() == "" {
				t.Fatalf("%q: %s with the error %q", text, p, err)
			}
			return
		}
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			t.Fatalf("%q is %s", text, p)
		}
		if again, err := ParsePrefix(p.String()); err != nil || again != p {
			t.Fatalf("%q is %s, which is %s, %v", text, p, again, err)
		}
		// What it means is what is found.
		var b bans
		b.list(p)
		if b.find(p.Addr(), 0) == nil {
			t.Fatalf("%s does not ban its own first address", p)
		}
		other := netip.MustParseAddr("2001:db8::1")
		if (b.find(other, 0) != nil) != p.Contains(other) {
			t.Fatalf("%s and %s", p, other)
		}
	})
}

// A ban of one address within a listed network, and the other way round.
func TestBansOverlap(t *testing.T) {
	var b bans
	b.list(netip.MustParsePrefix("2001:db8::1/128"))
	b.list(netip.MustParsePrefix("192.0.2.0/24"))
	flapper := netip.MustParseAddr("2001:db8::2")
	b.add(prefixOf(flapper), 10, 20)
	for _, test := range []struct {
		ip    string
		now   int64
		until int64 // 0: not banned
	}{
		{"2001:db8::1", 10, forever}, {"2001:db8::2", 10, 20}, {"2001:db8::3", 19, 20}, {"2001:db8:0:1::2", 10, 0},
		{"192.0.2.255", 10, forever}, {"192.0.3.0", 10, 0},
		{"2001:db8::2", 20, 0}, {"2001:db8::1", 20, forever},
	} {
		one := b.find(netip.MustParseAddr(test.ip), test.now)
		if (one != nil) != (test.until != 0) || one != nil && one.until != test.until {
			t.Errorf("%s at %d: %+v, want until %d", test.ip, test.now, one, test.until)
		}
	}
	if n := b.table.Size(); n != 0 || b.listed.Size() != 2 || len(b.ending) != 0 {
		t.Errorf("%d flapping and %d listed prefixes and %d that end are left", n, b.listed.Size(), len(b.ending))
	}
}

func TestBansAreBounded(t *testing.T) {
	var b bans
	const more = 100
	for i := range maxBans + more {
		b.add(prefixOf(nth(i)), int64(i), int64(i)+int64(time.Hour))
		if n := b.table.Size(); n > maxBans {
			t.Fatalf("%d bans", n)
		}
	}
	if err := b.check(); err != nil || len(b.ending) != maxBans || b.made != maxBans+more {
		t.Errorf("%d bans, %d made, %v", len(b.ending), b.made, err)
	}
	now := int64(maxBans + more)
	if b.find(nth(more-1), now) != nil || b.find(nth(more), now) == nil {
		t.Error("it was not the oldest that ended")
	}
	if b.find(nth(more), int64(2*time.Hour)) != nil || b.table.Size() != 0 {
		t.Error("bans do not end")
	}
}
