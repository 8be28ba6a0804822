package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"heartwheel/internal/wording"
)

// perSource is how many connections heartwheel loadtest lets share a source
// address before it takes the next one by itself: half of the usual range.
const perSource = 14_000

// addresses is how many source addresses the clients have, and of which ranges.
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
		return size(s), s.String() + ", which the load test takes by itself"
	}
	return 1, "the address that the kernel chooses"
}

// size is the number of usable addresses, as heartwheel loadtest counts them:
// the first and the last of an IPv4 network are not.
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

// loopbackFor is the range of 127.0.0.0/8, at least 62 addresses, in which no
// address has more than each connections.
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
	const why = "One source address has one port for each connection to a server's address and port."
	if err := cmp.Or(m.portLow.err, m.portHigh.err); err != nil {
		return unknown(err, f.Need, why)
	}
	each := max(0, m.portHigh.n-m.portLow.n+1-m.portsKept)
	n, text := p.addresses()
	f.Have = fmt.Sprintf("%s × %s", wording.Grouped(n), wording.Grouped(each))
	f.Status = enough(n*each, need)
	kept := ""
	if m.portsKept > 0 {
		kept = fmt.Sprintf(", less %s reserved", wording.Grouped(m.portsKept))
	}
	half := ceil(need, max(1, each/2))
	f.Why = fmt.Sprintf("%s The range has %s ports (%d to %d%s), and the addresses are %s.", why, wording.Grouped(each), m.portLow.n, m.portHigh.n, kept, text)
	if f.Status == OK && n < half {
		f.Why += fmt.Sprintf(" That is more than half of the range: from there on the kernel has to search for a free port, and other programs find few; %s addresses would be better.", wording.Grouped(half))
	}
	f.fix(p.morePorts(n, half)...)
	return f
}

// morePorts are ways to more ports for clients that have n addresses and would
// do well with half.
func (p *Plan) morePorts(n, half int64) []string {
	const wide = 65535 - 1024 + 1
	var fixes []string
	if p.loopback() {
		s := loopbackFor(half, 1)
		fixes = append(fixes, command("--source "+s.String(), "of heartwheel loadtest"))
	} else {
		fixes = append(fixes, command("--source PREFIX", fmt.Sprintf("of heartwheel loadtest, with at least %s addresses of this machine", wording.Grouped(half))))
	}
	if n*wide >= int64(p.Connections) {
		fixes = append(fixes, `sysctl -w net.ipv4.ip_local_port_range="1024 65535"`)
	}
	return fixes
}

func conntrack(m *machine, p *Plan) Finding {
	need := int64(p.Connections) + m.trackedNow.n
	f := Finding{Have: m.tracked.String(), Need: wording.Grouped(need), Status: OK,
		Why: fmt.Sprintf("A firewall or address translation on this machine may keep an entry for every connection; %s are kept now. When the table is full, packets are dropped.", m.trackedNow)}
	switch {
	case errors.Is(m.tracked.err, fs.ErrNotExist):
		f.Have, f.Need, f.Why = "not loaded", "-", "No firewall and no address translation of this machine keeps track of connections."
	case m.tracked.err != nil:
		return unknown(m.tracked.err, f.Need, f.Why)
	case m.tracked.n == 0:
		f.Have = "unlimited"
	case m.tracked.n >= need:
	case m.trackedNow.err != nil:
		f.Status = Unknown
		f.Why += " How many is not known."
	case m.trackedNow.n > 0:
		f.Status = Wrong
	case m.established:
		f.Why = "Connections are open and none is kept track of: no rule of this machine asks for it, and the limit does not matter."
	default:
		f.Status = Unknown
		f.Why = "No connection is open that would show whether the firewall of this machine keeps track of them. If net.netfilter.nf_conntrack_count is more than 0 while one is, set net.netfilter.nf_conntrack_max to what is needed; else the limit does not matter."
	}
	f.fix(setSysctl("net.netfilter.nf_conntrack_max", roundUp(need)))
	return f
}

// waiting is how many connections come to a server process in 200 ms, which is
// as long as it may be kept from accepting them without harm.
func (p *Plan) waiting() int64 {
	return ceil(min(int64(p.Connections), ceil(int64(p.ConnectRate), 5)), int64(p.ServerProcesses))
}

func somaxconn(m *machine, p *Plan) Finding {
	need := p.waiting()
	f := Finding{Have: m.somaxconn.String(), Need: wording.Grouped(need),
		Why: fmt.Sprintf("New connections wait here until the server takes them; for what finds no place the client tries again after a second. Needed is room for those of 200 ms, at %s a second.", wording.Grouped(int64(p.ConnectRate)))}
	if m.somaxconn.err != nil {
		return unknown(m.somaxconn.err, f.Need, f.Why)
	}
	f.Status = enough(m.somaxconn.n, need)
	f.fix(command(setSysctl("net.core.somaxconn", max(4096, roundUp(need))), "then start the server again"))
	return f
}

func synBacklog(m *machine, p *Plan) Finding {
	need := ceil(p.waiting()*4, 3) // the last quarter is for peers that are known
	f := Finding{Have: m.synBacklog.String(), Need: wording.Grouped(need),
		Why: fmt.Sprintf("Connects whose handshake is under way. SYN cookies are off, so the kernel drops what is beyond three quarters of this. Needed is room for those of 200 ms, at %s a second.", wording.Grouped(int64(p.ConnectRate)))}
	if m.synCookies.err == nil && m.synCookies.n > 0 {
		f.Status, f.Need = OK, "any"
		f.Why = "SYN cookies are on: the kernel drops no connect for this limit."
		return f
	}
	if err := cmp.Or(m.synCookies.err, m.synBacklog.err); err != nil {
		f.Why = "Connects whose handshake is under way; without SYN cookies the kernel drops what is beyond three quarters of this."
		return unknown(err, f.Need, f.Why)
	}
	f.Status = enough(m.synBacklog.n, need)
	f.fix(setSysctl("net.ipv4.tcp_syncookies", 1), setSysctl("net.ipv4.tcp_max_syn_backlog", max(4096, roundUp(need))))
	return f
}

func twBuckets(m *machine, p *Plan) Finding {
	f := Finding{Have: m.twBuckets.String(), Need: "any", Status: OK,
		Why: "So many closed connections are remembered for a minute each, by the side that closed first. heartwheel ends dead peers, and the load test all that it opened, by a reset, of which nothing is remembered. A server that drains more than this at once loses nothing either: the kernel forgets the rest early, and notes \"time wait bucket table overflow\" in its log."}
	if m.twBuckets.err != nil {
		return unknown(m.twBuckets.err, f.Need, f.Why)
	}
	return f
}
