package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"heartwheel/internal/wording"
)

// perSource is the number of connections from one source address at which
// heartwheel loadtest takes another: half of the usual port range.
const perSource = 14_000

// addresses returns the number of the clients' source addresses, and their ranges.
func (p *Plan) addresses() (n int64, text string) {
	if len(p.Sources) > 0 {
		for i, s := range p.Sources {
			n += size(s)
			if i > 0 {
				text += " "
			}
			text += s.String()
		}
		return n, text
	}
	if p.loopback() {
		s := loopbackFor(int64(p.Connections), perSource)
		return size(s), s.String() + ", the load test's default"
	}
	return 1, "the one that the kernel chooses"
}

// size returns the number of usable addresses, as heartwheel loadtest counts them:
// without the first and the last of an IPv4 network.
func size(s netip.Prefix) int64 {
	host := s.Addr().BitLen() - s.Bits()
	switch {
	case host >= 40: // more than any plan needs
		return 1 << 40
	case s.Addr().Is4() && host > 1:
		return 1<<host - 2
	}
	return 1 << host
}

// loopbackFor returns the smallest range of 127.0.0.0/8, of at least 62 addresses,
// in which no address has more than each connections.
func loopbackFor(connections, each int64) netip.Prefix {
	bits := 26
	for bits > 8 && (int64(1)<<(32-bits)-2)*each < connections {
		bits--
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), bits)
}

func ports(m *machine, p *Plan) Finding {
	need := int64(p.Connections)
	f := Finding{Have: "?", Need: wording.Grouped(need)}
	const why = "A source address needs a port of its own for each connection to the same server address."
	if err := cmp.Or(m.portLow.err, m.portHigh.err); err != nil {
		return unknown(err, f.Need, why)
	}
	each := max(0, m.portHigh.n-m.portLow.n+1-m.portsKept)
	n, text := p.addresses()
	f.Have = fmt.Sprintf("%s × %s", wording.Grouped(n), wording.Grouped(each))
	f.Status = atLeast(n*each, need)
	kept := ""
	if m.portsKept > 0 {
		kept = fmt.Sprintf(", less %s reserved", wording.Grouped(m.portsKept))
	}
	half := ceil(need, max(1, each/2))
	f.Why = fmt.Sprintf("%s The range has %s ports (%d to %d%s), the addresses are %s.",
		why, wording.Grouped(each), m.portLow.n, m.portHigh.n, kept, text)
	if f.Status == OK && n < half {
		f.Why += fmt.Sprintf(" More than half of the range will be in use: the kernel has to search for free ports, "+
			"and few are left for other programs. Better use %s addresses.", wording.Grouped(half))
	}
	f.fix(p.morePorts(n, half)...)
	return f
}

// morePorts returns ways to get more ports for clients that have n addresses and
// should have want.
func (p *Plan) morePorts(n, want int64) []string {
	const wide = 65535 - 1024 + 1
	var fixes []string
	if p.loopback() {
		s := loopbackFor(want, 1)
		fixes = append(fixes, command("--source "+s.String(), "for heartwheel loadtest"))
	} else {
		note := fmt.Sprintf("for heartwheel loadtest, at least %s addresses of this machine", wording.Grouped(want))
		fixes = append(fixes, command("--source PREFIX", note))
	}
	if n*wide >= int64(p.Connections) {
		fixes = append(fixes, `sysctl -w net.ipv4.ip_local_port_range="1024 65535"`)
	}
	return fixes
}

func conntrack(m *machine, p *Plan) Finding {
	need := int64(p.Connections) + m.trackedNow.n
	f := Finding{Have: m.tracked.String(), Need: wording.Grouped(need), Status: OK,
		Why: fmt.Sprintf("A firewall or NAT on this machine may keep an entry for each connection; %s are in use. "+
			"When the table is full, packets are dropped.", m.trackedNow)}
	switch {
	case errors.Is(m.tracked.err, fs.ErrNotExist):
		f.Have, f.Need, f.Why = "not loaded", "-", "No firewall or NAT on this machine tracks connections."
	case m.tracked.err != nil:
		return unknown(m.tracked.err, f.Need, f.Why)
	case m.tracked.n == 0:
		f.Have = "unlimited"
	case m.tracked.n >= need:
	case m.trackedNow.err != nil:
		f.Status = Unknown
		f.Why += " The number in use is unknown."
	case m.trackedNow.n > 0:
		f.Status = Wrong
	case m.established:
		f.Why = "Connections are open and none is tracked: no firewall rule uses connection tracking, " +
			"and the limit does not matter."
	default:
		f.Status = Unknown
		f.Why = "No connection is open that would show whether the firewall of this machine tracks them. " +
			"If net.netfilter.nf_conntrack_count is above 0 while one is open, set net.netfilter.nf_conntrack_max " +
			"to the number above; else the limit does not matter."
	}
	f.fix(setSysctl("net.netfilter.nf_conntrack_max", roundUp(need)))
	return f
}

// backlog returns the connections that arrive at a server process in 200 ms, the
// longest pause in accepting that should do no harm.
func (p *Plan) backlog() int64 {
	return ceil(min(int64(p.Connections), ceil(int64(p.ConnectRate), 5)), int64(p.ServerProcesses))
}

func somaxconn(m *machine, p *Plan) Finding {
	need := p.backlog()
	f := Finding{Have: m.somaxconn.String(), Need: wording.Grouped(need),
		Why: fmt.Sprintf("New connections wait here until the server accepts them. When it is full, clients retry "+
			"after a second. This is for 200 ms at %s a second.", wording.Grouped(int64(p.ConnectRate)))}
	if m.somaxconn.err != nil {
		return unknown(m.somaxconn.err, f.Need, f.Why)
	}
	f.Status = atLeast(m.somaxconn.n, need)
	f.fix(command(setSysctl("net.core.somaxconn", max(4096, roundUp(need))), "then restart the server"))
	return f
}

func synBacklog(m *machine, p *Plan) Finding {
	need := ceil(p.backlog()*4, 3) // the last quarter is for known peers
	f := Finding{Have: m.synBacklog.String(), Need: wording.Grouped(need),
		Why: fmt.Sprintf("Connections whose handshake is under way. SYN cookies are off, so the kernel drops those "+
			"above three quarters of this. This is for 200 ms at %s a second.", wording.Grouped(int64(p.ConnectRate)))}
	if m.synCookies.err == nil && m.synCookies.n > 0 {
		f.Status, f.Need = OK, "any"
		f.Why = "SYN cookies are on: the kernel drops no connection because of this limit."
		return f
	}
	if err := cmp.Or(m.synCookies.err, m.synBacklog.err); err != nil {
		f.Why = "Connections whose handshake is under way. Without SYN cookies the kernel drops those above three " +
			"quarters of this."
		return unknown(err, f.Need, f.Why)
	}
	f.Status = atLeast(m.synBacklog.n, need)
	f.fix(setSysctl("net.ipv4.tcp_syncookies", 1), setSysctl("net.ipv4.tcp_max_syn_backlog", max(4096, roundUp(need))))
	return f
}

func twBuckets(m *machine, p *Plan) Finding {
	f := Finding{Have: m.twBuckets.String(), Need: "any", Status: OK,
		Why: "The kernel remembers up to this many closed connections for a minute, on the side that closed first. " +
			"heartwheel closes dead peers with a reset, and the load test all its connections: of these nothing is " +
			"kept. Draining more than this at once is harmless: the kernel forgets the rest early and logs " +
			"\"time wait bucket table overflow\"."}
	if m.twBuckets.err != nil {
		return unknown(m.twBuckets.err, f.Need, f.Why)
	}
	return f
}
