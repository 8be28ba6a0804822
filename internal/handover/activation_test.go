package handover

import (
	"net/netip"
	"os"
	"strconv"
	"testing"

	"heartwheel/internal/address"
)

func TestBoundTo(t *testing.T) {
	for _, c := range []struct {
		bound, hostport string
		want            bool
	}{
		{"127.0.0.1:9000", "127.0.0.1:9000", true},
		{"127.0.0.1:9000", "127.0.0.1:9001", false},
		{"127.0.0.1:9000", "127.0.0.2:9000", false},
		{"[::]:9000", ":9000", true},
		{"[::]:9000", "0.0.0.0:9000", false},
		{"0.0.0.0:9000", ":9000", true},
		{"127.0.0.1:9000", ":9000", false},
		{"[::1]:9000", "[::1]:9000", true},
		{"[::ffff:127.0.0.1]:9000", "127.0.0.1:9000", true},
		{"[fe80::1%lo]:9000", "[fe80::1%lo]:9000", true},
		{"[fe80::1%lo]:9000", "[FE80:0::1%25lo]:9000", true},
		{"[fe80::1%lo]:9000", "[fe80::1%eth0]:9000", false},
		{"[::1]:9000", "[::1%lo]:9000", true}, // not link-local: the kernel reports no zone
	} {
		a, err := address.ParseHostPort(c.hostport)
		if err != nil {
			t.Fatal(err)
		}
		if got := boundTo(netip.MustParseAddrPort(c.bound), a); got != c.want {
			t.Errorf("a socket bound to %s is for %s: %v, want %v", c.bound, c.hostport, got, c.want)
		}
	}
}

func TestActivatedIsForThisProcess(t *testing.T) {
	pid := "LISTEN_PID=" + strconv.Itoa(os.Getpid())
	for _, environ := range [][]string{nil, {"LISTEN_FDS=1"}, {"LISTEN_FDS=1", "LISTEN_PID=1"}, {pid, "LISTEN_FDS=0"}} {
		if in, err := Activated(environ, nil, "off"); err != nil || len(in.sockets) != 0 {
			t.Errorf("%v: %v, %v", environ, in.Addresses(), err)
		}
	}
	for _, n := range []string{"", "x", "-1", "99999999999999999999"} {
		if _, err := Activated([]string{pid, "LISTEN_FDS=" + n}, nil, "off"); err == nil {
			t.Errorf("LISTEN_FDS=%s was accepted", n)
		}
	}
}
