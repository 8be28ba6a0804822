package engine

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/edge/websocket"
)

// A Peer is one connection that speaks as those of a load do, but blocks. Not safe for
// concurrent use.
type Peer struct {
	conn   net.Conn
	edge   *edge // nil: plain TCP
	link   link
	in     []byte // inbound bytes, records if there is TLS
	plain  []byte // and what was in them
	buffer [4096]byte
}

// Dial makes a connection, with TLS handshake and WebSocket upgrade. Each step may
// take up to timeout. An error of the connect itself is a *net.OpError, and of a server
// that refuses the WebSocket a *websocket.RefusedError.
func (l *Load) Dial(target netip.AddrPort, timeout time.Duration) (*Peer, error) {
	tls, err := l.NewTLS()
	if err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout("tcp", target.String(), timeout)
	if err != nil {
		return nil, err
	}
	p := &Peer{conn: conn, edge: newEdge(l), link: newLink()}
	if tls != nil {
		p.link.tls, _, err = tls.Handshake(conn)
	}
	if err == nil && l.HasWebSocket() {
		_ = conn.SetDeadline(time.Now().Add(timeout))
		err = p.upgrade(&l.Request)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return p, nil
}

func (p *Peer) upgrade(r *websocket.ClientRequest) error {
	var n websocket.Nonce
	_, _ = rand.Read(n[:]) // never fails
	if _, err := p.conn.Write(p.edge.seal(&p.link, r.Append(nil, n))); err != nil {
		return err
	}
	for {
		if err := p.read(); err != nil {
			return fmt.Errorf("no response to the WebSocket request: %w", err)
		}
		used, err := websocket.ReadResponse(p.plain, n)
		if used > 0 || err != nil {
			p.plain = p.plain[used:]
			return err
		}
	}
}

// SetDeadline bounds all that is done on the connection from now on.
func (p *Peer) SetDeadline(t time.Time) { _ = p.conn.SetDeadline(t) }

// Write sends whole native frames.
func (p *Peer) Write(frames []byte) error {
	if p.edge != nil {
		frames = p.edge.encode(&p.link, frames)
	}
	_, err := p.conn.Write(frames)
	return err
}

// Next returns the next native frame, or what stands for one. It is valid until the
// next call. An error of the frame itself is a *codec.Error.
func (p *Peer) Next() (f codec.Frame, err error) {
	for {
		n, whole := 0, true
		if p.edge == nil {
			f, n, err = codec.Decode(p.plain, codec.MaxFrameLimit)
		} else {
			f, n, whole, err = p.edge.next(&p.link, p.plain)
		}
		switch p.plain = p.plain[n:]; {
		case err != nil || n > 0 && whole:
			return f, err
		case n == 0:
			if err := p.read(); err != nil {
				return f, err
			}
		}
	}
}

// read reads once.
func (p *Peer) read() error {
	n, err := p.conn.Read(p.buffer[:])
	if p.link.tls == nil {
		p.plain = append(slices.Clip(p.plain), p.buffer[:n]...) // frames that were returned stay valid
		return err
	}
	if err != nil {
		return err
	}
	p.in = append(p.in, p.buffer[:n]...)
	plain, used, err := p.edge.open(&p.link, p.in)
	p.in = p.in[used:]
	if p.plain = append(slices.Clip(p.plain), plain...); len(plain) > 0 {
		return nil // an error comes back from the next call
	}
	return err
}

// Close resets the connection, once the target has closed it or the deadline is over.
func (p *Peer) Close() {
	c := p.conn.(*net.TCPConn)
	if p.edge != nil && p.edge.ws {
		_, _ = c.Write(p.edge.seal(&p.link, appendCloseAnswer(nil, []byte{0x03, 0xe8}))) // 1000
	}
	if p.link.tls != nil {
		_, _ = c.Write(p.link.tls.AppendClose(nil))
	}
	_ = c.CloseWrite()
	for {
		if _, err := c.Read(p.buffer[:]); err != nil {
			break
		}
	}
	_ = c.SetLinger(0)
	c.Close()
}
