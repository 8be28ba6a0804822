// Command goroutine is the standard library: a goroutine for each connection,
// bufio.Reader, SetReadDeadline.
//
// All whole frames that are in the buffer go out in one write and share one
// SetReadDeadline, as in the servers with event loops. -buffer 512 is for those
// who know that their frames are small: bufio's own default, 4096 bytes, is most
// of what a connection takes. -tls is crypto/tls in between.
package main

import (
	"bufio"
	"crypto/tls"
	"flag"
	"io"
	"net"
	"sync"
	"time"

	"heartwheel/bench/peers/peer"
)

// large holds room for a frame that does not fit into a reader's buffer.
var large = sync.Pool{New: func() any { return new([peer.Header + peer.MaxFrame]byte) }}

func main() {
	size := flag.Int("buffer", 4096, "bytes that each connection's bufio.Reader holds")
	secure := flag.Bool("tls", false, "serve TLS, with a self-signed certificate")
	o := peer.Start()
	ln, err := o.Listen()
	if err != nil {
		peer.Fail(err)
	}
	if *secure {
		config, err := peer.TLS()
		if err != nil {
			peer.Fail(err)
		}
		ln = tls.NewListener(ln, config)
	}
	peer.Listening(ln.Addr().String())
	for {
		conn, err := ln.Accept()
		if err != nil {
			peer.Fail(err)
		}
		go serve(conn, o.Timeout, *size)
	}
}

func serve(conn net.Conn, timeout time.Duration, size int) {
	peer.Conns.Add(1)
	defer peer.Conns.Add(-1)
	defer conn.Close()
	r := bufio.NewReaderSize(conn, size)
	for {
		// The next frame has to be whole until then.
		if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return
		}
		if err := echo(conn, r); err != nil {
			return
		}
	}
}

// echo waits for a whole frame and answers it, and all whole ones behind it that
// have arrived with it.
func echo(conn net.Conn, r *bufio.Reader) error {
	head, err := r.Peek(peer.Header)
	if err != nil {
		return err
	}
	size, ok := peer.Size(head)
	if !ok {
		return io.ErrShortBuffer
	}
	if size > r.Size() {
		return echoLarge(conn, r, size)
	}
	if _, err := r.Peek(size); err != nil {
		return err
	}
	b, err := r.Peek(r.Buffered())
	if err != nil {
		return err
	}
	n, _ := peer.Whole(b) // a frame that is too long is met as the next one's head
	if _, err := conn.Write(b[:n]); err != nil {
		return err
	}
	_, err = r.Discard(n)
	return err
}

func echoLarge(conn net.Conn, r *bufio.Reader, size int) error {
	room := large.Get().(*[peer.Header + peer.MaxFrame]byte)
	defer large.Put(room)
	if _, err := io.ReadFull(r, room[:size]); err != nil {
		return err
	}
	_, err := conn.Write(room[:size])
	return err
}
