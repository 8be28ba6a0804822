package admission

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/gaissmai/bart"
)

// maxBans is how many flapping addresses are banned at one time. One more ends
// the ban that would end first.
const maxBans = 65536

// forever is the end of a listed ban.
const forever = math.MaxInt64

// bans are the addresses that are not let in: listed ones for ever, flapping ones
// for some time. Not safe for concurrent use.
type bans struct {
	listed bart.Table[*ban]
	table  bart.Table[*ban] // flapping addresses
	ending []*ban           // of flapping addresses, in the order in which they end
	made   uint64           // bans of flapping addresses since the start
}

// A ban of a prefix.
type ban struct {
	prefix    netip.Prefix
	until     int64 // by the clock of addresses
	noticeTAT int64 // of addresses.notices
}

// list bans a prefix for ever.
func (b *bans) list(p netip.Prefix) {
	b.listed.Insert(p, &ban{prefix: p, until: forever})
}

// relist bans these prefixes for ever, and no longer those listed before.
func (b *bans) relist(prefixes []netip.Prefix) {
	b.listed = bart.Table[*ban]{}
	for _, p := range prefixes {
		b.list(p)
	}
}

// endBy makes the bans of flapping addresses end at that time at the latest.
func (b *bans) endBy(latest int64) {
	for _, one := range b.ending {
		one.until = min(one.until, latest)
	}
}

// add bans an address that is not banned yet. now never goes back, and no
// ban in force ends later than the new one.
func (b *bans) add(p netip.Prefix, now, until int64) *ban {
	b.expire(now)
	if len(b.ending) == maxBans {
		b.end()
	}
	one := &ban{prefix: p, until: until}
	b.table.Insert(p, one)
	b.ending = append(b.ending, one)
	b.made++
	return one
}

// find returns the ban of the longest prefix that holds ip, a listed one first;
// nil if there is none.
func (b *bans) find(ip netip.Addr, now int64) *ban {
	b.expire(now)
	one, ok := b.listed.Lookup(ip)
	if !ok {
		one, _ = b.table.Lookup(ip)
	}
	return one
}

// expire ends the bans that are over.
func (b *bans) expire(now int64) {
	for len(b.ending) > 0 && b.ending[0].until <= now {
		b.end()
	}
}

// end ends the ban that ends first.
func (b *bans) end() {
	b.table.Delete(b.ending[0].prefix)
	b.ending[0] = nil
	b.ending = b.ending[1:]
}

// check re-derives what must always hold.
func (b *bans) check() error {
	for i, one := range b.ending {
		if got, ok := b.table.Get(one.prefix); !ok || got != one {
			return fmt.Errorf("the ban of %s is not in the table", one.prefix)
		}
		if i > 0 && one.until < b.ending[i-1].until {
			return fmt.Errorf("the ban of %s ends before that of %s, but comes after it", one.prefix,
				b.ending[i-1].prefix)
		}
	}
	if len(b.ending) > maxBans {
		return fmt.Errorf("there are %d bans, more than %d", len(b.ending), maxBans)
	}
	return nil
}

// ParsePrefix reads an address or a CIDR prefix. The error continues a sentence that
// begins with the text, and says what to write instead. Safe for concurrent use.
func ParsePrefix(text string) (netip.Prefix, error) {
	const form = "write an address, such as 192.0.2.7 or 2001:db8::1, or a prefix, such as 192.0.2.0/24"
	if ip, err := netip.ParseAddr(text); err == nil {
		if ip.Zone() != "" {
			return netip.Prefix{}, errors.New("has a zone; leave out what follows %")
		}
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, errors.New("is not an address; " + form)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, errors.New("is wider than all IPv4 addresses within IPv6; " + form)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("has bits beyond its first %d; write %s or %s", p.Bits(), p.Masked(),
			p.Addr())
	}
	return p, nil
}
