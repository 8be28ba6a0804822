package main

import (
	"sync"
	"time"

	"github.com/lesismal/llib/std/crypto/tls"
	"github.com/lesismal/nbio"
	"github.com/lesismal/nbio/mempool"

	"heartwheel/bench/peers/peer"
)

// A session is TLS over a connection, and the part of a frame that earlier data
// ended with, nil while there is none.
type session struct {
	tls  *tls.Conn
	rest []byte
}

// plain has room for what is decrypted at a time, so that all frames of a read
// are answered with one write.
var plain = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// serveTLS serves as nbhttp's TLSDataHandler does, without HTTP: the fork of
// crypto/tls that does not block is given what was read, and keeps a buffer only
// while a record is not whole.
func serveTLS(engine *nbio.Engine, timeout time.Duration) error {
	cert, key, err := peer.SelfSigned()
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	engine.OnOpen(func(c *nbio.Conn) {
		c.SetSession(&session{tls: tls.NewConn(c, config, false, true, mempool.DefaultMemPool)})
		opened(c, timeout)
	})
	engine.OnClose(func(c *nbio.Conn, _ error) {
		peer.Conns.Add(-1)
		if s, ok := c.Session().(*session); ok {
			go s.tls.Close() // gives its buffers back; may have been called within a method of it
		}
	})
	engine.OnData(func(c *nbio.Conn, data []byte) {
		s := c.Session().(*session)
		if err := s.read(c, data, timeout); err != nil {
			_ = c.CloseWithError(err)
		}
	})
	return nil
}

// read decrypts what was read and answers it.
func (s *session) read(c *nbio.Conn, data []byte, timeout time.Duration) error {
	defer s.tls.ResetOrFreeBuffer()
	room := plain.Get().(*[64 << 10]byte)
	defer plain.Put(room)
	for more := true; more; {
		n := 0
		for more && n < len(room) {
			_, k, err := s.tls.AppendAndRead(data, room[n:])
			if err != nil {
				return err
			}
			data, n, more = nil, n+k, k > 0
		}
		s.rest = echo(c, s.tls, s.rest, room[:n], timeout)
	}
	return nil
}
