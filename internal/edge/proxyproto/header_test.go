package proxyproto

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	other "github.com/pires/go-proxyproto"
)

// v2 returns a header of version 2.
func v2(command, family byte, content string) string {
	b := append([]byte(signature2), 0x20|command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(content)))) + content
}

func tlv(kind byte, value string) string {
	return string(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))) + value
}

const (
	four  = "\x0a\x00\x00\x01\xc0\xa8\x00\x02\x30\x39\x01\xbb" // 10.0.0.1:12345 to 192.168.0.2:443
	six   = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + loop6 + "\x30\x39\x01\xbb"
	loop6 = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
)

var (
	from4, to4 = netip.MustParseAddrPort("10.0.0.1:12345"), netip.MustParseAddrPort("192.168.0.2:443")
	from6, to6 = netip.MustParseAddrPort("[2001:db8::1]:12345"), netip.MustParseAddrPort("[::1]:443")
)

func name(s string) string { return s + strings.Repeat("\x00", pathSize-len(s)) }

var headers = []struct {
	name, in string
	want     Header
	err      error
}{
	{"v1 TCP4", "PROXY TCP4 10.0.0.1 192.168.0.2 12345 443\r\n",
		Header{Version: 1, Source: from4, Destination: to4}, nil},
	{"v1 TCP6", "PROXY TCP6 2001:db8::1 ::1 12345 443\r\n", Header{Version: 1, Source: from6, Destination: to6}, nil},
	{"v1 mapped", "PROXY TCP6 ::ffff:10.0.0.1 ::ffff:192.168.0.2 12345 443\r\n",
		Header{Version: 1, Source: from4, Destination: to4}, nil},
	{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", Header{Version: 1, Local: true}, nil},
	{"v1 UNKNOWN, the longest", "PROXY UNKNOWN " + strings.Repeat("f", MaxV1-16) + "\r\n",
		Header{Version: 1, Local: true}, nil},
	{"v1 a byte too long", "PROXY UNKNOWN " + strings.Repeat("f", MaxV1-15) + "\r\n", Header{}, ErrTooLong},
	{"v1 UNKNOWNX", "PROXY UNKNOWNX\r\n", Header{}, ErrMalformed},
	{"v1 UDP4", "PROXY UDP4 10.0.0.1 192.168.0.2 12345 443\r\n", Header{}, ErrMalformed},
	{"v1 IPv6 in TCP4", "PROXY TCP4 ::1 ::1 12345 443\r\n", Header{}, ErrMalformed},
	{"v1 IPv4 in TCP6", "PROXY TCP6 10.0.0.1 10.0.0.1 12345 443\r\n", Header{}, ErrMalformed},
	{"v1 zone", "PROXY TCP6 fe80::1%eth0 ::1 12345 443\r\n", Header{}, ErrMalformed},
	{"v1 port 65536", "PROXY TCP4 10.0.0.1 192.168.0.2 65536 443\r\n", Header{}, ErrMalformed},
	{"v1 port +1", "PROXY TCP4 10.0.0.1 192.168.0.2 +1 443\r\n", Header{}, ErrMalformed},
	{"v1 port 01", "PROXY TCP4 10.0.0.1 192.168.0.2 01 443\r\n", Header{}, ErrMalformed},
	{"v1 octet 010", "PROXY TCP4 010.0.0.1 192.168.0.2 1 443\r\n", Header{}, ErrMalformed},
	{"v1 two spaces", "PROXY TCP4  10.0.0.1 192.168.0.2 1 443\r\n", Header{}, ErrMalformed},
	{"v1 one word more", "PROXY TCP4 10.0.0.1 192.168.0.2 1 443 \r\n", Header{}, ErrMalformed},
	{"v1 LF alone", "PROXY TCP4 10.0.0.1 192.168.0.2 12345 443\n", Header{}, ErrMalformed},
	{"v1 nothing", "PROXY \r\n", Header{}, ErrMalformed},
	{"v2 TCP4", v2(1, 0x11, four), Header{Version: 2, Source: from4, Destination: to4, TLVs: []byte{}}, nil},
	{"v2 UDP4", v2(1, 0x12, four), Header{Version: 2, Source: from4, Destination: to4, TLVs: []byte{}}, nil},
	{"v2 TCP6", v2(1, 0x21, six), Header{Version: 2, Source: from6, Destination: to6, TLVs: []byte{}}, nil},
	{"v2 TLVs", v2(1, 0x11, four+tlv(TypeAuthority, "h")+tlv(TypeNoOp, "")),
		Header{Version: 2, Source: from4, Destination: to4, TLVs: []byte("\x02\x00\x01h\x04\x00\x00")}, nil},
	{"v2 unix", v2(1, 0x31, name("/run/a")+name("\x00abstract")),
		Header{Version: 2, SourcePath: "/run/a", DestinationPath: "\x00abstract", TLVs: []byte{}}, nil},
	{"v2 unix without names, the longest", v2(1, 0x31, name("")+name(strings.Repeat("n", pathSize))),
		Header{Version: 2, DestinationPath: strings.Repeat("n", pathSize), TLVs: []byte{}}, nil},
	{"v2 UNSPEC", v2(1, 0x00, tlv(TypeUniqueID, "u")),
		Header{Version: 2, Local: true, TLVs: []byte("\x05\x00\x01u")}, nil},
	{"v2 LOCAL", v2(0, 0x00, ""), Header{Version: 2, Local: true}, nil},
	{"v2 LOCAL, what it carries is ignored", v2(0, 0xFF, "any"), Header{Version: 2, Local: true}, nil},
	{"v2 version 3", signature2 + "\x31", Header{}, ErrMalformed},
	{"v2 command 2", signature2 + "\x22", Header{}, ErrMalformed},
	{"v2 family 4", signature2 + "\x21\x41", Header{}, ErrMalformed},
	{"v2 transport 3", signature2 + "\x21\x13", Header{}, ErrMalformed},
	{"v2 no transport", signature2 + "\x21\x30", Header{}, ErrMalformed},
	{"v2 no family", signature2 + "\x21\x01", Header{}, ErrMalformed},
	{"v2 addresses cut", v2(1, 0x11, four[1:]), Header{}, ErrMalformed},
	{"v2 too long, known at the length", signature2 + "\x21\x11\x0f\xf1", Header{}, ErrTooLong},
	{"v2 LOCAL too long", signature2 + "\x20\x00\xff\xff", Header{}, ErrTooLong},
	{"v2 TLV cut", v2(1, 0x11, four+"\x02\x00"), Header{}, ErrMalformed},
	{"v2 TLV longer than what is there", v2(1, 0x11, four+"\x02\x00\x02h"), Header{}, ErrMalformed},
	{"v2 checksum of 3 bytes", v2(1, 0x11, four+tlv(TypeCRC32C, "abc")), Header{}, ErrMalformed},
	{"v2 wrong checksum", v2(1, 0x11, four+tlv(TypeCRC32C, "abcd")), Header{}, ErrChecksum},
	{"TLS", "\x16\x03\x01", Header{}, ErrNone},
	{"native", "\x00\x00\x00\x00", Header{}, ErrNone},
	{"HTTP", "POST / HTTP/1.1\r\n", Header{}, ErrNone},
	{"almost v1", "PROXYS", Header{}, ErrNone},
	{"almost v2", "\r\n\r\n\x00\r\nQUIT\r", Header{}, ErrNone},
}

// TestParse checks each header, with bytes after it, and cut at every byte.
func TestParse(t *testing.T) {
	for _, c := range headers {
		t.Run(c.name, func(t *testing.T) {
			for _, after := range []string{"", "\x00\x00\x00\x00", "\r\n"} {
				in := c.in + after
				h, used, err := Parse([]byte(in))
				if err != c.err || !reflect.DeepEqual(h, c.want) || err == nil && used != len(c.in) {
					t.Fatalf("got %+v, %d, %v", h, used, err)
				}
			}
			for n := range len(c.in) {
				if h, used, err := Parse([]byte(c.in[:n])); used != 0 || err != nil && err != c.err {
					t.Fatalf("%d bytes: %+v, %d, %v", n, h, used, err)
				}
			}
		})
	}
}

// TestChecksum: every changed bit is found. go-proxyproto gives the header, which
// has the TLV in the middle.
func TestChecksum(t *testing.T) {
	in := []byte(v2(1, 0x11, four+tlv(TypeUniqueID, "u")+tlv(TypeCRC32C, "\x00\x00\x00\x00")+tlv(TypeNoOp, "n")))
	at := len(in) - 4 - 4
	binary.BigEndian.PutUint32(in[at:], slowCRC(in))
	h, used, err := Parse(in)
	if err != nil || used != len(in) {
		t.Fatalf("got %+v, %d, %v", h, used, err)
	}
	if v, ok := h.TLV(TypeNoOp); string(v) != "n" || !ok {
		t.Errorf("TLV = %q, %t", v, ok)
	}
	if v, ok := h.TLV(TypeSSL); v != nil || ok {
		t.Errorf("TLV that is not there = %q, %t", v, ok)
	}
	for bit := 8 * fixedSize; bit < 8*len(in); bit++ {
		in[bit/8] ^= 1 << (bit % 8)
		if h, _, err := Parse(in); err == nil && bytes.Contains(h.TLVs, tlvHead(TypeCRC32C)) {
			t.Errorf("bit %d changed: %+v", bit, h)
		}
		in[bit/8] ^= 1 << (bit % 8)
	}
}

func tlvHead(kind byte) []byte { return []byte{kind, 0, 4} }

// slowCRC is CRC32c bit by bit, RFC 4960, appendix B.
func slowCRC(b []byte) uint32 {
	sum := ^uint32(0)
	for _, x := range b {
		sum ^= uint32(x)
		for range 8 {
			if sum&1 != 0 {
				sum = sum>>1 ^ 0x82F63B78
			} else {
				sum >>= 1
			}
		}
	}
	return ^sum
}

func TestAllocs(t *testing.T) {
	in := []byte(v2(1, 0x21, six+tlv(TypeAuthority, "h")))
	if n := testing.AllocsPerRun(100, func() {
		if _, used, err := Parse(in); used == 0 || err != nil {
			t.Fatal(used, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzParse: the result does not depend on cuts, and is that of go-proxyproto where
// both accept. That is more lenient with text addresses, ignores checksums and
// refuses some headers that say nothing of the client.
func FuzzParse(f *testing.F) {
	for i, c := range headers {
		f.Add([]byte(c.in+"after"), i)
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		h, used, err := Parse(in)
		early, n, earlyErr := Parse(in[:int(uint(cut)%uint(len(in)+1))])
		if earlyErr != nil && earlyErr != err || n != 0 && (n != used || !reflect.DeepEqual(h, early)) {
			t.Errorf("cut: %+v, %d, %v; whole: %+v, %d, %v", early, n, earlyErr, h, used, err)
		}
		if used == 0 || err != nil {
			return
		}
		r := bufio.NewReaderSize(bytes.NewReader(in), 1<<16)
		o, otherErr := other.Read(r)
		if otherErr != nil {
			if !h.Local && !errors.Is(otherErr, other.ErrInvalidAddress) {
				t.Errorf("%+v, but go-proxyproto: %v", h, otherErr)
			}
			return
		}
		if took := len(in) - r.Buffered(); took != used {
			t.Errorf("used %d bytes, go-proxyproto %d", used, took)
		}
		if !h.Local && (!same(h.Source, h.SourcePath, o.SourceAddr) ||
			!same(h.Destination, h.DestinationPath, o.DestinationAddr)) {
			t.Errorf("%+v, go-proxyproto %v to %v", h, o.SourceAddr, o.DestinationAddr)
		}
	})
}

func same(a netip.AddrPort, path string, o net.Addr) bool {
	switch o := o.(type) {
	case *net.TCPAddr:
		p := o.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()) == a
	case *net.UDPAddr:
		p := o.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()) == a
	case *net.UnixAddr:
		return o.Name == path || strings.HasPrefix(path, "\x00") && o.Name == ""
	}
	return false
}
