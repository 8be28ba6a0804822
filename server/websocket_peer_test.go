package server

import (
	"bytes"
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"time"

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

// A wsClient is a client of frames made by hand.
type wsClient struct {
	net.Conn
	t    *testing.T
	left []byte
}

// dialByHand connects to a ws, wss or tls address.
func dialByHand(t *testing.T, url string, tc *tls.Config) net.Conn {
	t.Helper()
	a, err := parseListen(url)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.DialTimeout("tcp", a.HostPort(), patience)
	if err != nil {
		t.Fatal(err)
	}
	c := tcp
	if a.Scheme == "tls" || a.Scheme == "wss" {
		c = tls.Client(tcp, tc)
	}
	t.Cleanup(func() { _ = tcp.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// openByHand connects and upgrades.
func openByHand(t *testing.T, url string, tc *tls.Config) *wsClient {
	t.Helper()
	a, _ := parseListen(url)
	c := &wsClient{Conn: dialByHand(t, url, tc), t: t}
	c.send([]byte("GET " + a.Path + " HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"))
	for !bytes.Contains(c.left, []byte("\r\n\r\n")) {
		if err := c.more(); err != nil {
			t.Fatalf("%v after %q", err, c.left)
		}
	}
	head, left, _ := bytes.Cut(c.left, []byte("\r\n\r\n"))
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		t.Fatalf("answered %q", head)
	}
	c.left = left
	return c
}

func (c *wsClient) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// more reads what comes.
func (c *wsClient) more() error {
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	c.left = append(c.left, b[:n]...)
	if n > 0 {
		return nil
	}
	return err
}

// next returns the next frame.
func (c *wsClient) next() (wsFrame, error) {
	for {
		if all, _ := parseWS(c.left); len(all) > 0 {
			n := len(all[0].content)
			size := 2 + n
			if n >= 126 {
				size += 2
			}
			if n > 0xFFFF {
				size += 6
			}
			c.left = c.left[size:]
			return all[0], nil
		}
		if err := c.more(); err != nil {
			return wsFrame{}, err
		}
	}
}

// rest returns all frames up to the end of the stream, and how that ends: io.EOF for
// FIN, over TLS with close_notify before it.
func (c *wsClient) rest() (all []wsFrame, err error) {
	for {
		if err := c.more(); err != nil {
			all, left := parseWS(c.left)
			if len(left) > 0 {
				c.t.Errorf("the last frame is not whole: % x", left)
			}
			return all, err
		}
	}
}
