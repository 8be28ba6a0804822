package server

import (
	"net"
	"testing"
)

// TestIPBlock: addresses that share a block stay what they were, whatever their
// neighbours become.
func TestIPBlock(t *testing.T) {
	var block ipBlock
	var kept, want []net.IP
	for _, s := range []string{"10.0.0.1", "10.0.0.2", "2001:db8::1", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6",
		"::1", "2001:db8::2", "10.0.0.7"} {
		ip := shortIP(net.ParseIP(s))
		kept, want = append(kept, block.keep(ip)), append(want, net.ParseIP(s))
		clear(ip) // its owner may use it again
	}
	for i, ip := range kept {
		if !ip.Equal(want[i]) {
			t.Errorf("address %d is %s, not %s", i, ip, want[i])
		}
		if cap(ip) != len(ip) {
			t.Errorf("address %d of %d bytes has room for %d: appending to it would change its neighbour", i, len(ip),
				cap(ip))
		}
	}
	ip := net.IPv4(10, 0, 0, 8).To4()
	if n := testing.AllocsPerRun(100, func() {
		for range 4 {
			block.keep(ip)
		}
	}); n != 1 {
		t.Errorf("four short addresses take %v blocks", n)
	}
}
