package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"

	"heartwheel/codec"
	"heartwheel/server"
)

// shout answers DATA in capitals and says why a connection ended.
type shout struct{ gone chan server.Reason }

func (shout) Open(c *server.Conn) { _ = c.Send(codec.OpData, []byte("hello")) }

func (shout) Frame(c *server.Conn, f codec.Frame) error {
	if f.Op != codec.OpData {
		return nil
	}
	up := append([]byte(nil), f.Payload...) // f.Payload is ours only until we return
	for i, b := range up {
		if 'a' <= b && b <= 'z' {
			up[i] = b - 'a' + 'A'
		}
	}
	return c.Send(codec.OpData, up)
}

func (h shout) Close(_ *server.Conn, why server.Reason) { h.gone <- why }

// A program of its own behind the connections: three callbacks, and the server
// does the rest.
func Example() {
	h := shout{gone: make(chan server.Reason, 1)}
	s, err := server.New(server.Config{
		Listen: []string{"tcp://127.0.0.1:0"},
		Logger: slog.New(slog.DiscardHandler),
	}, h)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	c, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = c.Write(codec.AppendData(nil, []byte("anybody there?")))
	answer := make([]byte, 5+5+5+14)
	if _, err := io.ReadFull(c, answer); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s %s\n", answer[5:10], answer[15:])
	_ = c.Close()
	fmt.Println(<-h.gone)

	stop()
	fmt.Println(<-ended)
	// Output:
	// hello ANYBODY THERE?
	// peer_closed
	// <nil>
}
