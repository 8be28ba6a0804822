package netlab

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// A Lab is a private network with a client's side and a server's. Its methods
// are not safe for concurrent use.
type Lab struct {
	Client, Server *Namespace

	t      testing.TB
	pulled bool
}

// Cable returns two namespaces joined by a cable. It may skip the test. The
// test's end removes it.
func Cable(t testing.TB) *Lab {
	t.Helper()
	l := &Lab{t: t, Client: newNamespace(t), Server: newNamespace(t)}
	l.Client.join(device, "192.0.2.1/24", l.Server, device, "192.0.2.2/24")
	return l
}

// NAT returns a client behind a router whose connection tracking translates
// its addresses and forgets a TCP connection after mapping without a packet, a
// whole number of seconds. What comes then, from either side, is dropped
// without a word, as by the routers of homes and carriers: to the peers it
// looks as if the other one were gone. The server cannot reach the client.
//
// Conntrack compares the time whenever it looks a connection up; its garbage
// collection only gives the memory back. So the mapping time is exact: measured
// to within 20 ms. It counts from the last packet either way, which may be an
// acknowledgement that was delayed by up to 200 ms.
//
// It may skip the test. The test's end removes it.
func NAT(t testing.TB, mapping time.Duration) *Lab {
	t.Helper()
	if mapping < time.Second || mapping > 300*time.Second || mapping%time.Second != 0 {
		t.Fatalf("a mapping time of %s is not a whole number of seconds from 1 to 300", mapping)
	}
	const inside, outside = "inside", "outside"
	l := &Lab{t: t, Client: newNamespace(t), Server: newNamespace(t)}
	router := newNamespace(t)
	l.Client.join(device, "192.0.2.2/24", router, inside, "192.0.2.1/24")
	l.Server.join(device, "198.51.100.2/24", router, outside, "198.51.100.1/24")
	l.Client.ip("route", "add", "default", "via", "192.0.2.1")
	// The rules come first: they load what the settings belong to.
	router.rules(func(c *nftables.Conn) { translate(c, outside) })
	router.set("netfilter/nf_conntrack_tcp_timeout_established", strconv.Itoa(int(mapping/time.Second)))
	router.set("netfilter/nf_conntrack_tcp_loose", "0") // a connection begins with its SYN, or is invalid
	router.set("ipv4/ip_forward", "1")
	return l
}

// translate gives what leaves by a device that one's address, and drops what
// belongs to no connection: before routing, so that the router itself does not
// reset what it has forgotten.
func translate(c *nftables.Conn, outside string) {
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "router"})
	c.AddRule(&nftables.Rule{
		Table: table,
		Chain: c.AddChain(&nftables.Chain{
			Table: table, Name: "translate", Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		}),
		Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte(outside), 0)},
			&expr.Masq{},
		},
	})
	c.AddRule(&nftables.Rule{
		Table: table,
		Chain: c.AddChain(&nftables.Chain{
			Table: table, Name: "forgotten", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle,
		}),
		Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Bitwise{
				SourceRegister: 1, DestRegister: 1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitINVALID),
				Xor:  binaryutil.NativeEndian.PutUint32(0),
			},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
			&expr.Verdict{Kind: expr.VerdictDrop},
		},
	})
}

// Pull pulls the cable out: nothing that is sent arrives any more at the client
// nor at the server, and no error is reported, as with a cable behind the next
// switch. It returns when it is out.
func (l *Lab) Pull() {
	l.t.Helper()
	if l.pulled {
		return
	}
	l.pulled = true
	for _, n := range []*Namespace{l.Server, l.Client} {
		n.rules(func(c *nftables.Conn) {
			table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: "pulled"})
			drop := nftables.ChainPolicyDrop
			c.AddChain(&nftables.Chain{
				Table: table, Name: "all", Type: nftables.ChainTypeFilter, Policy: &drop, Device: device,
				Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter,
			})
		})
	}
}

// Plug puts the cable back in.
func (l *Lab) Plug() {
	l.t.Helper()
	if !l.pulled {
		return
	}
	l.pulled = false
	for _, n := range []*Namespace{l.Server, l.Client} {
		n.rules(func(c *nftables.Conn) {
			c.DelTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: "pulled"})
		})
	}
}

// rules changes the packet filter of n: what change asks for, all at once.
func (n *Namespace) rules(change func(*nftables.Conn)) {
	n.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(int(n.file.Fd())))
	if err == nil {
		change(c)
		err = c.Flush()
	}
	if err != nil {
		skipOrFail(n.t, "nftables", err)
	}
}
