package server

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"
)

func TestSmoke(t *testing.T) {
	s, err := New(Config{Listen: []string{"tcp://127.0.0.1:0"}, Beat: 200 * time.Millisecond, Timeout: 500 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))}, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	c, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	c.Write([]byte{0, 0, 0, 0, 0, 0, 0, 3, 3, 'h', 'i'})
	b := make([]byte, 11)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	t.Logf("% x", b)
	start := time.Now()
	n, err := c.Read(b)
	t.Log(n, err, time.Since(start))
	t.Logf("%+v", s.Stats())
	t.Logf("%+v", s.Check())
	cancel()
	t.Log(<-done)
}
