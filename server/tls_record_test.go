package server

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/edge/tlsedge"
)

// A recordMaker makes records of TLS 1.3 by hand, with the keys of a client that has
// sent none after its handshake, for those that crypto/tls never sends.
type recordMaker struct {
	secret []byte
	seq    uint64
}

// Content types and a message of RFC 8446.
const (
	tlsAlert, tlsHandshake, tlsData = 21, 22, 23

	keyUpdate, keyUpdateAsk = "\x18\x00\x00\x01\x00", "\x18\x00\x00\x01\x01"
)

// handshakeByHand is handshake with a client of TLS 1.3 that sends by hand.
func handshakeByHand(t *testing.T, s *tlsedge.Server) (*tlsedge.Transport, *tlsPeer, *recordMaker) {
	t.Helper()
	var keys bytes.Buffer
	tr, p := handshake(t, s, &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, KeyLogWriter: &keys,
	})
	if suite := tr.State().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("the suite is %s: this processor has no AES", tls.CipherSuiteName(suite))
	}
	for line := range strings.Lines(keys.String()) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			return tr, p, &recordMaker{secret: secret}
		}
	}
	t.Fatal("no secret in the log of keys")
	return nil, nil, nil
}

// expand is HKDF-Expand-Label without context.
func (m *recordMaker) expand(label string, n int) []byte {
	label = "tls13 " + label
	info := fmt.Sprintf("%c%c%c%s%c", 0, n, len(label), label, 0)
	b, err := hkdf.Expand(sha256.New, m.secret, info, n)
	if err != nil {
		panic(err)
	}
	return b
}

// record returns a record; after a key update the next one has another key.
func (m *recordMaker) record(kind byte, content string) []byte {
	block, _ := aes.NewCipher(m.expand("key", 16))
	aead, _ := cipher.NewGCM(block)
	nonce := m.expand("iv", 12)
	var seq [12]byte
	binary.BigEndian.PutUint64(seq[4:], m.seq)
	for i := range nonce {
		nonce[i] ^= seq[i]
	}
	m.seq++
	head := binary.BigEndian.AppendUint16([]byte{tlsData, 3, 3}, uint16(len(content)+1+aead.Overhead()))
	b := aead.Seal(head, nonce, append([]byte(content), kind), head)
	if kind == tlsHandshake && strings.HasSuffix(content, keyUpdate) || strings.HasSuffix(content, keyUpdateAsk) {
		m.secret, m.seq = m.expand("traffic upd", 32), 0
	}
	return b
}

// onRecords runs f with one connection of native over TLS, whose peer sends by hand.
func onRecords(t *testing.T, cfg Config, f func(t *testing.T, r *edgeRig, c *Conn, m *recordMaker)) {
	t.Helper()
	s := newTLSServer(t)
	synctest.Test(t, func(t *testing.T) {
		i := slices.IndexFunc(tongues, func(to tongue) bool { return to.name == "native over TLS" })
		r := &edgeRig{rig: newRig(t, cfg, nil), tongue: tongues[i], peers: map[*Conn]*tlsPeer{}}
		r.rec.onFrame = func(c *Conn, f codec.Frame) error { return c.Send(f.Op, f.Payload) }
		var m *recordMaker
		r.do(func() {
			r.loop.edges = append(r.loop.edges, r.tongue.edge(r.loop))
			r.rig.edge = 1
			r.rig.transport = func() (tr transport) {
				tr, r.last, m = handshakeByHand(t, s)
				return tr
			}
		})
		f(t, r, r.open(), m)
	})
}

// A key update and an empty record are no message, and no part of one either: nothing
// is incomplete after them, and they are no sign of life.
func TestTLSRecordsWithoutContent(t *testing.T) {
	for name, record := range map[string]func(m *recordMaker) []byte{
		"key update":        func(m *recordMaker) []byte { return m.record(tlsHandshake, keyUpdate) },
		"key update, asked": func(m *recordMaker) []byte { return m.record(tlsHandshake, keyUpdateAsk) },
		"empty":             func(m *recordMaker) []byte { return m.record(tlsData, "") },
	} {
		t.Run(name, func(t *testing.T) {
			onRecords(t, profile(t, "standard"), func(t *testing.T, r *edgeRig, c *Conn, m *recordMaker) {
				idle := c.Timeout()
				from := time.Now()
				r.wait(time.Second)
				r.feed(c, record(m))
				r.wait(11 * time.Second)
				r.alive(c, "11 s after a record without content")
				r.wait(idle)
				within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, idle)
			})
			onRecords(t, Config{}, func(t *testing.T, r *edgeRig, c *Conn, m *recordMaker) {
				for i := range 20 {
					r.feed(c, record(m))
					s := fmt.Sprint(i)
					r.feed(c, m.record(tlsData, string(data(s)[:3])), m.record(tlsData, string(data(s)[3:])))
				}
				var want []string
				for i := range 20 {
					want = append(want, fmt.Sprint(i))
				}
				r.want(c, want...)
				r.check()
			})
		})
	}
}

// Records of one byte, the largest, and those that are not allowed.
func TestTLSRecords(t *testing.T) {
	onRecords(t, Config{}, func(t *testing.T, r *edgeRig, c *Conn, m *recordMaker) {
		big := strings.Repeat("x", 16<<10-5)
		for _, b := range data("one") {
			r.feed(c, m.record(tlsData, string([]byte{b})))
		}
		r.feed(c, m.record(tlsData, string(data(big))))
		r.want(c, "one", big)
		r.do(func() {
			if c.ext.mem < 16<<10 {
				t.Errorf("%d bytes are counted after a large record", c.ext.mem)
			}
		})
		r.check()
		r.feed(c, m.record(tlsAlert, "\x01\x00"))
		r.wantEnd(c, PeerClosed, false)
		r.do(func() {
			if n := r.loop.account.sum() - int64(r.loop.account.pool.bytes); n != 0 {
				t.Errorf("%d bytes are counted in the end", n)
			}
		})
	})
	for name, tc := range map[string]struct{ kind, content string }{
		"too long":           {"\x17", strings.Repeat("x", 16<<10+1)},
		"unknown kind":       {"\x63", "x"},
		"a fatal alert":      {"\x15", "\x02\x28"},
		"a second hello":     {"\x16", "\x01\x00\x00\x00"},
		"a bad key update":   {"\x16", "\x18\x00\x00\x01\x02"},
		"half a key update":  {"\x16", "\x18\x00\x00\x01"},
		"an empty handshake": {"\x16", ""},
	} {
		t.Run(name, func(t *testing.T) {
			onRecords(t, Config{}, func(t *testing.T, r *edgeRig, c *Conn, m *recordMaker) {
				r.feed(c, m.record(tlsData, string(data("before"))), m.record(tc.kind[0], tc.content))
				if name == "half a key update" { // it may go on
					r.alive(c, name)
					r.wait(time.Minute)
					r.wantEnd(c, IdleTimeout, true)
					return
				}
				e := r.rig.wantEnd(c, ProtocolError, false)
				p := r.peers[c]
				plain, _ := p.open(r.sock(c).out)
				if string(plain) != string(data("before")) {
					t.Errorf("sent %q", plain)
				}
				if tc.kind != "\x15" && (p.ended == nil || !strings.Contains(p.ended.Error(), "remote error")) {
					t.Errorf("%v: no alert: %v", e, p.ended)
				}
			})
		})
	}
	onRecords(t, Config{}, func(t *testing.T, r *edgeRig, c *Conn, m *recordMaker) {
		for range 40 { // at once, as a flood
			r.feed(c, m.record(tlsData, ""))
		}
		r.rig.wantEnd(c, ProtocolError, false)
	})
}

// What is answered before close_notify goes out, with close_notify behind it, however
// slowly the peer reads; what comes after it does not matter.
func TestTLSHalfClose(t *testing.T) {
	onRecords(t, Config{WriteStall: time.Minute}, func(t *testing.T, r *edgeRig, c *Conn, m *recordMaker) {
		fill(r.rig, c)
		r.feed(c, m.record(tlsData, string(data("one"))+string(data("two"))), m.record(tlsAlert, "\x01\x00"))
		r.feed(c, []byte("what is this"))
		for range 30 {
			r.alive(c, "with answers to come")
			r.wait(time.Second)
			r.do(func() { r.writable(c, 1) })
		}
		r.do(func() { r.writable(c, -1) })
		r.wantEnd(c, PeerClosed, false)
		r.want(c, "one", "two")
		if p := r.peers[c]; p.ended != io.EOF {
			t.Error(p.ended)
		}
	})
}
