package server

import (
	"crypto/subtle"
	"encoding/binary"
	"slices"

	"heartwheel/codec"
)

// Opcodes of RFC 6455, 5.2, with the bit of the last fragment.
const (
	wsText   = 0x81
	wsBinary = 0x82
	wsClose  = 0x88
	wsPing   = 0x89
	wsPong   = 0x8A
	wsFin    = 0x80
)

var wsMask = []byte{0x37, 0xFA, 0x21, 0x3D}

// masked returns a frame of a client. first is its first byte.
func masked(first byte, content string) []byte {
	b := []byte{first}
	switch n := len(content); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, wsMask...)
	at := len(b)
	b = append(b, content...)
	for p := b[at:]; len(p) > 0; {
		p = p[subtle.XORBytes(p, p, wsMask):]
	}
	return b
}

// A wsFrame is one that the server has sent.
type wsFrame struct {
	first   byte
	content string
}

// parseWS returns the whole frames that b begins with, and what is left.
func parseWS(b []byte) (all []wsFrame, left []byte) {
	for len(b) >= 2 {
		head, n := 2, int(b[1])
		switch {
		case n == 126 && len(b) >= 4:
			head, n = 4, int(binary.BigEndian.Uint16(b[2:]))
		case n == 127 && len(b) >= 10:
			head, n = 10, int(binary.BigEndian.Uint64(b[2:]))
		case n >= 126:
			return all, b
		}
		if len(b) < head+n {
			break
		}
		all = append(all, wsFrame{b[0], string(b[head : head+n])})
		b = b[head+n:]
	}
	return all, b
}

// wsBodies returns what a client sends for native frames: the body of each in a
// message, in two fragments if cut, and a pong for the empty one.
func wsBodies(frames []byte, cut bool) (b []byte) {
	for ; len(frames) > 0; frames = frames[frameLen(frames):] {
		body := string(frames[codec.HeaderSize:frameLen(frames)])
		switch half := len(body) / 2; {
		case body == "":
			b = append(b, masked(wsPong, "")...)
		case cut:
			b = slices.Concat(b, masked(wsBinary&^wsFin, body[:half]), masked(wsFin, body[half:]))
		default:
			b = append(b, masked(wsBinary, body)...)
		}
	}
	return b
}

// readWS is readNative for WebSocket.
func readWS(b []byte) (all []string, whole bool) {
	frames, left := parseWS(b)
	for _, f := range frames {
		switch {
		case f.first == wsPing:
			all = append(all, "beat")
		case f.first == wsPong:
			all = append(all, "pong "+f.content)
		case f.first == wsClose:
			all = append(all, "end")
		case f.first != wsBinary || f.content == "":
			return all, false
		case codec.Op(f.content[0]) == codec.OpGoaway:
			all = append(all, "soon")
		default:
			all = append(all, f.content[1:])
		}
	}
	return all, len(left) == 0
}
