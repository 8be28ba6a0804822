package loadtest

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// perSource is how many connections share a source address by default: half of the
// smallest usual port range, as the kernel finds a free port slowly in a range that is
// nearly full.
const perSource = 14000

// defaultSources are 127.0.0.0/26, or as much more of 127.0.0.0/8 as n connections
// need, for a target on loopback. For other targets the kernel chooses.
func defaultSources(target netip.Addr, n int) []netip.Prefix {
	if !target.Is4() || !target.IsLoopback() {
		return nil
	}
	bits := 26
	for bits > 8 && usable(1<<(32-bits))*perSource < n {
		bits--
	}
	return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), bits)}
}

// usable is the number of addresses of a prefix without the first and the last.
func usable(size int) int { return max(1, size-2) }

// sourceAddrs lists the addresses of the prefixes, at most limit of them, without
// network and broadcast addresses.
func sourceAddrs(prefixes []netip.Prefix, limit int) []netip.Addr {
	var list []netip.Addr
	for _, p := range prefixes {
		p = p.Masked()
		skip := p.Addr().Is4() && p.Bits() < 31
		for a := p.Addr(); p.Contains(a) && len(list) < limit; a = a.Next() {
			if skip && (a == p.Addr() || !p.Contains(a.Next())) {
				continue
			}
			list = append(list, a)
		}
	}
	return list
}

// parseSource reads an address or a prefix.
func parseSource(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("is not an address or a range of them; write one such as 10.0.0.5 or 127.0.0.0/26")
	}
	return p.Masked(), nil
}

// portRange is the number of ephemeral ports for one source address and one
// destination.
func portRange() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	var low, high int
	if err == nil {
		if _, err = fmt.Sscan(strings.TrimSpace(string(text)), &low, &high); err == nil && high >= low {
			return high - low + 1
		}
	}
	return 28232
}
