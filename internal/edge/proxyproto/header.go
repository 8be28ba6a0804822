// Package proxyproto parses the PROXY protocol header, versions 1 and 2, with which
// a load balancer says whose connection it passes on.
// https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt is the text.
//
// Of this module it imports codec.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"

	"heartwheel/codec"
)

// Bounds, in bytes.
const (
	// MaxV1 is the longest header of version 1, with its CR LF.
	MaxV1 = 107
	// MaxV2 is the longest header of version 2 that is accepted. The length field
	// could say 64 KiB; addresses and TLVs of known senders are below 1 KiB.
	MaxV2 = 4096
)

// Types of TLV. https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, 2.2
const (
	TypeALPN      = 0x01
	TypeAuthority = 0x02 // host name that the client asked for, SNI
	TypeCRC32C    = 0x03 // verified by Parse
	TypeNoOp      = 0x04
	TypeUniqueID  = 0x05
	TypeSSL       = 0x20
)

// The errors of Parse. It returns these values themselves.
var (
	// ErrNone: these bytes do not begin a PROXY header.
	ErrNone = &codec.Error{Code: codec.CodeProtocolError,
		Text: "proxyproto: no PROXY header, which this listener requires"}
	// ErrMalformed: a PROXY header begins, but is not valid.
	ErrMalformed = &codec.Error{Code: codec.CodeProtocolError, Text: "proxyproto: malformed PROXY header"}
	// ErrTooLong: the header is longer than MaxV1 or MaxV2.
	ErrTooLong = &codec.Error{Code: codec.CodeProtocolError, Text: "proxyproto: PROXY header is too long"}
	// ErrChecksum: the CRC32c in the header is not that of the header.
	ErrChecksum = &codec.Error{Code: codec.CodeProtocolError, Text: "proxyproto: wrong checksum of PROXY header"}
)

// A Header says whose connection it is.
type Header struct {
	Version int // 1 or 2
	// Local: the header names no client, and the socket's addresses are the right
	// ones. The sender's own connection, such as a health check, or one that it
	// could not describe (UNKNOWN, AF_UNSPEC).
	Local bool
	// Source and Destination are the client's and the address that it connected to.
	// An IPv4 address is one also where it came as ::ffff:a.b.c.d. Not valid for
	// Unix sockets and if Local.
	Source, Destination netip.AddrPort
	// SourcePath and DestinationPath are the names of Unix sockets, which may be
	// empty.
	SourcePath, DestinationPath string
	// TLVs is the list of type, u16 length and value, well-formed; nil in version
	// 1, and of the sender's own connections. It is a part of the input.
	TLVs []byte
}

// signature begins a header of version 2; "PROXY " one of version 1.
const (
	signature1 = "PROXY "
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"
)

// Parse parses the header that in begins with, and returns how many bytes it took: 0
// with a nil error while it is not whole. It refuses as early as the bytes allow.
// How the stream is cut never changes the result.
func Parse(in []byte) (h Header, used int, err error) {
	switch {
	case bytes.HasPrefix(in, []byte(signature1)):
		return parse1(in)
	case bytes.HasPrefix(in, []byte(signature2)):
		return parse2(in)
	case strings.HasPrefix(signature1, string(in)), strings.HasPrefix(signature2, string(in)):
		return Header{}, 0, nil
	}
	return Header{}, 0, ErrNone
}

// parse1 parses version 1: a line of text.
//
//	PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT CR LF
//	PROXY UNKNOWN … CR LF
func parse1(in []byte) (h Header, used int, err error) {
	end := bytes.IndexByte(in[:min(len(in), MaxV1)], '\n')
	switch {
	case end < 0 && len(in) >= MaxV1:
		return Header{}, 0, ErrTooLong
	case end < 0:
		return Header{}, 0, nil
	case in[end-1] != '\r':
		return Header{}, 0, ErrMalformed
	}
	line := string(in[len(signature1) : end-1])
	h.Version = 1
	if line == "UNKNOWN" || strings.HasPrefix(line, "UNKNOWN ") {
		h.Local = true
		return h, end + 1, nil
	}
	words := strings.Split(line, " ")
	if len(words) != 5 || words[0] != "TCP4" && words[0] != "TCP6" {
		return Header{}, 0, ErrMalformed
	}
	var ok [2]bool
	four := words[0] == "TCP4"
	h.Source, ok[0] = textAddress(words[1], words[3], four)
	h.Destination, ok[1] = textAddress(words[2], words[4], four)
	if !ok[0] || !ok[1] {
		return Header{}, 0, ErrMalformed
	}
	return h, end + 1, nil
}

func textAddress(addr, port string, four bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	n, err2 := strconv.ParseUint(port, 10, 16)
	ok := err == nil && err2 == nil && a.Is4() == four && a.Zone() == "" && strconv.FormatUint(n, 10) == port
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), ok
}

// Commands, and families with their lengths, of version 2.
const (
	commandLocal = 0
	commandProxy = 1

	familyUnspec = 0
	familyIP4    = 1
	familyIP6    = 2
	familyUnix   = 3

	fixedSize = len(signature2) + 4
	pathSize  = 108
)

// addressSize is how long the addresses of each family are.
var addressSize = [...]int{familyUnspec: 0, familyIP4: 2 * (4 + 2), familyIP6: 2 * (16 + 2), familyUnix: 2 * pathSize}

// parse2 parses version 2.
//
//	signature | u4 version 2, u4 command | u4 family, u4 transport | u16 length | addresses | TLVs
func parse2(in []byte) (h Header, used int, err error) {
	fixed := in[len(signature2):min(len(in), fixedSize)]
	if len(fixed) > 0 && (fixed[0]>>4 != 2 || fixed[0]&0x0F > commandProxy) {
		return Header{}, 0, ErrMalformed
	}
	local := len(fixed) > 0 && fixed[0]&0x0F == commandLocal
	// The family of the sender's own connection is ignored.
	if len(fixed) > 1 && !local && !defined(fixed[1]) {
		return Header{}, 0, ErrMalformed
	}
	if len(fixed) < 4 {
		return Header{}, 0, nil
	}
	used = fixedSize + int(binary.BigEndian.Uint16(fixed[2:]))
	family := fixed[1] >> 4
	switch {
	case used > MaxV2:
		return Header{}, 0, ErrTooLong
	case !local && used-fixedSize < addressSize[family]:
		return Header{}, 0, ErrMalformed
	case len(in) < used:
		return Header{}, 0, nil
	}
	h.Version = 2
	if h.Local = local || family == familyUnspec; local {
		return h, used, nil
	}
	b := in[fixedSize:used:used]
	h.addresses(b, family)
	h.TLVs = b[addressSize[family]:]
	if err := h.check(in[:used]); err != nil {
		return Header{}, 0, err
	}
	return h, used, nil
}

// defined reports whether the text defines the pair of family and transport.
// Others must be refused.
func defined(b byte) bool {
	family, transport := b>>4, b&0x0F
	return b == familyUnspec || family >= familyIP4 && family <= familyUnix && (transport == 1 || transport == 2)
}

func (h *Header) addresses(b []byte, family byte) {
	switch family {
	case familyIP4:
		h.Source = binaryAddress(b[:4], b[8:])
		h.Destination = binaryAddress(b[4:8], b[10:])
	case familyIP6:
		h.Source = binaryAddress(b[:16], b[32:])
		h.Destination = binaryAddress(b[16:32], b[34:])
	case familyUnix:
		h.SourcePath = path(b[:pathSize])
		h.DestinationPath = path(b[pathSize : 2*pathSize])
	}
}

func binaryAddress(addr, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

// path returns a name that ends with a zero byte. That of an abstract socket begins
// with one.
func path(b []byte) string {
	name := b[1:]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	if b[0] == 0 && len(name) == 0 {
		return ""
	}
	return string(b[:1+len(name)])
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// check checks the TLVs and, if one is a checksum of the header, that.
func (h *Header) check(header []byte) error {
	for rest := h.TLVs; len(rest) > 0; {
		kind, value, after, ok := nextTLV(rest)
		if !ok || kind == TypeCRC32C && len(value) != crc32.Size {
			return ErrMalformed
		}
		if kind == TypeCRC32C { // counted as if its own bytes were 0
			at := len(header) - len(after) - crc32.Size
			sum := crc32.Update(0, castagnoli, header[:at])
			sum = crc32.Update(sum, castagnoli, make([]byte, crc32.Size))
			sum = crc32.Update(sum, castagnoli, after)
			if sum != binary.BigEndian.Uint32(value) {
				return ErrChecksum
			}
		}
		rest = after
	}
	return nil
}

func nextTLV(b []byte) (kind byte, value, after []byte, ok bool) {
	if len(b) < 3 {
		return 0, nil, nil, false
	}
	end := 3 + int(binary.BigEndian.Uint16(b[1:]))
	if len(b) < end {
		return 0, nil, nil, false
	}
	return b[0], b[3:end:end], b[end:], true
}

// TLV returns the value of the first TLV of a type. It is a part of the input.
func (h *Header) TLV(kind byte) (value []byte, ok bool) {
	for rest := h.TLVs; len(rest) > 0; {
		k, value, after, ok := nextTLV(rest)
		if !ok || k == kind {
			return value, ok
		}
		rest = after
	}
	return nil, false
}
