package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"heartwheel/codec"
)

// welcomed is the WELCOME of a rig's server.
var welcomed = codec.Welcome{V: 1, Session: "s1", BeatMS: 10_000, TimeoutMS: 25_000, Beats: "client", MaxFrame: 65536,
	SpreadMS: 4000}

// rigScheme is what rigs speak: tcp or ws. See TestOverWebSocket.
var rigScheme = "tcp"

// A rig is a client's network with one fake server, for use inside a synctest bubble. It
// records events with the time since its start.
type rig struct {
	t     *testing.T
	began time.Time
	cfg   Config
	chunk int // bytes that the server writes at once; 0: a whole frame
	web   bool

	mu      sync.Mutex
	refuse  error // what dialling ends with
	events  []at[Event]
	dials   []at[string]
	peers   []*peer
	welcome codec.Welcome
	mute    bool          // HELLO is not answered
	greet   func(p *peer) // answers HELLO in place of a WELCOME
	onFrame func(p *peer, f codec.Frame)
}

// at is something at a time.
type at[T any] struct {
	time time.Duration
	what T
}

// newRig returns a rig whose jitter is always half of its range, unless draws
// are given: these come first, then half again.
func newRig(t *testing.T, draws ...float64) *rig {
	r := &rig{t: t, began: time.Now(), welcome: welcomed, web: rigScheme == "ws"}
	var mu sync.Mutex
	r.cfg = Config{
		DialContext: r.dial,
		OnState: func(e Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, at[Event]{r.now(), e})
		},
		rand: func() float64 {
			mu.Lock()
			defer mu.Unlock()
			if len(draws) == 0 {
				return 0.5
			}
			d := draws[0]
			draws = draws[1:]
			return d
		},
	}
	return r
}

func (r *rig) now() time.Duration { return time.Since(r.began) }

// connect dials, and closes the client at the end of the test.
func (r *rig) connect() *Client {
	r.t.Helper()
	c, err := Dial(r.t.Context(), rigScheme+"://server:1", r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// dial is a Config.DialContext that leads to the rig's server.
func (r *rig) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dials = append(r.dials, at[string]{r.now(), addr})
	if r.refuse != nil {
		return nil, r.refuse
	}
	ours, theirs := net.Pipe()
	p := &peer{rig: r, nc: theirs, gone: make(chan struct{}), out: make(chan []byte, 1000)}
	r.peers = append(r.peers, p)
	go p.serve()
	go p.pump()
	return ours, nil
}

func (r *rig) setRefuse(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = err
}

// peer returns the server's end of the latest connection.
func (r *rig) peer() *peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peers[len(r.peers)-1]
}

// dialTimes returns when the client dialled.
func (r *rig) dialTimes() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	var times []time.Duration
	for _, d := range r.dials {
		times = append(times, d.time)
	}
	return times
}

// dialled returns the addresses dialled.
func (r *rig) dialled() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var addrs []string
	for _, d := range r.dials {
		addrs = append(addrs, d.what)
	}
	return addrs
}

// states returns the changes of state up to now.
func (r *rig) states() []at[Event] {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// last returns the last change of state.
func (r *rig) last() at[Event] {
	r.t.Helper()
	all := r.states()
	if len(all) == 0 {
		r.t.Fatal("no state was ever told")
	}
	return all[len(all)-1]
}

// A peer is the server's end of a connection.
type peer struct {
	rig  *rig
	nc   net.Conn
	gone chan struct{} // closed when the client's end is

	out chan []byte // to be written; nil: hang up

	mu     sync.Mutex
	silent bool // beats and pings are not answered
	got    []at[codec.Frame]
	err    error // what reading ended with
}

// serve answers as a server does and records the frames.
func (p *peer) serve() {
	defer close(p.gone)
	read := p.nc.Read
	if p.rig.web {
		if _, err := ws.Upgrade(p.nc); err != nil {
			p.nc.Close()
			return
		}
		read = p.readWeb
	}
	var buf []byte
	for b := make([]byte, 8192); ; {
		n, err := read(b)
		buf = append(buf, b[:n]...)
		for {
			f, n, err := codec.Decode(buf, codec.MaxFrameLimit)
			if err != nil {
				p.rig.t.Errorf("the client sent an invalid frame: %v", err)
				return
			}
			if n == 0 {
				break
			}
			f.Payload = slices.Clone(f.Payload)
			buf = buf[n:]
			p.frame(f)
		}
		if err != nil {
			p.mu.Lock()
			p.err = err
			p.mu.Unlock()
			p.nc.Close()
			return
		}
	}
}

func (p *peer) frame(f codec.Frame) {
	r := p.rig
	p.mu.Lock()
	p.got = append(p.got, at[codec.Frame]{r.now(), f})
	silent := p.silent
	p.mu.Unlock()
	r.mu.Lock()
	welcome, mute, greet, onFrame := r.welcome, r.mute, r.greet, r.onFrame
	r.mu.Unlock()
	switch {
	case f.Op == codec.OpHello && greet != nil:
		greet(p)
	case f.Op == codec.OpHello && !mute:
		p.write(codec.AppendWelcome(nil, welcome))
	case f.Op == codec.OpBeat && welcome.Beats == "client" && !silent:
		p.write(codec.AppendBeat(nil))
	case f.Op == codec.OpPing && !silent:
		p.write(codec.AppendPong(nil, f.Payload))
	}
	if onFrame != nil {
		onFrame(p, f)
	}
}

// write queues bytes for the client, as a kernel would. A client that is gone is not an
// error.
func (p *peer) write(b []byte) {
	select {
	case p.out <- b:
	case <-p.gone:
	}
}

// hangUp closes the server's end once everything is written.
func (p *peer) hangUp() { p.write(nil) }

// pump writes what is queued.
func (p *peer) pump() {
	defer p.nc.Close()
	for {
		var b []byte
		select {
		case b = <-p.out:
		case <-p.gone:
		}
		if b == nil {
			return
		}
		if p.rig.web {
			b = p.toWeb(b)
		}
		chunk := p.rig.chunk
		if chunk == 0 {
			chunk = len(b)
		}
		for part := range slices.Chunk(b, max(chunk, 1)) {
			if _, err := p.nc.Write(part); err != nil {
				if !errors.Is(err, io.ErrClosedPipe) {
					p.rig.t.Errorf("server: %v", err)
				}
				return
			}
		}
	}
}

// readFrame reads a frame of a client, which sends none over 16 MiB.
func readFrame(r io.Reader) (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(r); err != nil {
		return f, err
	}
	if f.Header.Length > 1<<24 {
		return f, fmt.Errorf("a frame of %d bytes", f.Header.Length)
	}
	f.Payload = make([]byte, f.Header.Length)
	_, err = io.ReadFull(r, f.Payload)
	return f, err
}

// readWeb reads a frame of a WebSocket as one of ours. A pong is a beat.
func (p *peer) readWeb(b []byte) (int, error) {
	f, err := readFrame(p.nc)
	if err != nil {
		return 0, err
	}
	if !f.Header.Masked || !f.Header.Fin {
		p.rig.t.Errorf("the client sent %+v", f.Header)
	}
	f = ws.UnmaskFrame(f)
	var out []byte
	switch f.Header.OpCode {
	case ws.OpBinary:
		out = append(binary.BigEndian.AppendUint32(nil, uint32(len(f.Payload))), f.Payload...)
	case ws.OpPong:
		out = codec.AppendBeat(nil)
	case ws.OpClose:
		out = codec.AppendFrame(nil, codec.OpClose, f.Payload)
	default:
		p.rig.t.Errorf("the client sent %+v", f.Header)
	}
	if len(out) > len(b) {
		p.rig.t.Errorf("a message of %d bytes", len(out))
	}
	return copy(b, out), nil
}

// toWeb returns frames as a WebSocket has them, also a part of one at the end. A
// server that beats sends pings.
func (p *peer) toWeb(b []byte) (out []byte) {
	p.rig.mu.Lock()
	pings := p.rig.welcome.Beats == "server"
	p.rig.mu.Unlock()
	for len(b) >= codec.HeaderSize {
		length := int(binary.BigEndian.Uint32(b))
		body := b[codec.HeaderSize:][:min(length, len(b)-codec.HeaderSize)]
		b = b[codec.HeaderSize+len(body):]
		f := ws.NewBinaryFrame(body)
		switch {
		case length == 0 && pings:
			f = ws.NewPingFrame(nil)
		case len(body) > 0 && codec.Op(body[0]) == codec.OpClose:
			f = ws.NewCloseFrame(body[1:])
		}
		f.Header.Length = int64(length)
		if f.Header.OpCode == ws.OpClose {
			f.Header.Length--
		}
		out = append(out, ws.MustCompileFrame(f)...)
	}
	if len(b) > 0 {
		out = append(out, 0x82) // no more of the header
	}
	return out
}

func (p *peer) setSilent(silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = silent
}

// times returns when frames of an op came.
func (p *peer) times(op codec.Op) []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var times []time.Duration
	for _, g := range p.got {
		if g.what.Op == op {
			times = append(times, g.time)
		}
	}
	return times
}

// frames returns what came with an op.
func (p *peer) frames(op codec.Op) []codec.Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	var fs []codec.Frame
	for _, g := range p.got {
		if g.what.Op == op {
			fs = append(fs, g.what)
		}
	}
	return fs
}

// bubble runs f with a fake clock. It fails when a goroutine is left.
func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

// seconds makes a list of durations readable.
func seconds(s ...float64) []time.Duration {
	var ds []time.Duration
	for _, f := range s {
		ds = append(ds, time.Duration(f*1e9))
	}
	return ds
}

func wantTimes(t *testing.T, what string, got []time.Duration, want ...float64) {
	t.Helper()
	if !slices.Equal(got, seconds(want...)) {
		t.Errorf("%s at %v, want %v", what, got, seconds(want...))
	}
}
