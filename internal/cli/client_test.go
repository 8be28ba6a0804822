package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"heartwheel/client"
	"heartwheel/codec"
	"heartwheel/internal/settings"
	"heartwheel/server"
)

// type NAME LINE types a line into a started heartwheel.
func cmdType(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "type NAME LINE")
	_, err := io.WriteString(named(ts, args[0]).stdin, args[1]+"\n")
	ts.Check(err)
}

// puppet VAR starts a server that does what DATA says, and puts its address into
// a variable: see puppet.Frame. The tokens are in puppet.Hello.
func cmdPuppet(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "puppet VAR")
	addr, stop, err := startPuppet()
	ts.Check(err)
	ts.Defer(stop)
	ts.Setenv(args[0], addr)
}

func startPuppet() (addr string, stop func(), err error) {
	s, err := server.New(server.Config{Listen: []string{"tcp://127.0.0.1:0"}, Drain: time.Millisecond,
		Spread: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}, &puppet{})
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s.Addrs()[0].String(), func() { cancel(); <-done }, nil
}

// A puppet is a server's application.
type puppet struct{ server.Echo }

func (*puppet) Hello(c *server.Conn, h codec.Hello) error {
	switch h.Token {
	case "bad":
		return errors.New("no such token")
	case "brief":
		time.AfterFunc(300*time.Millisecond, func() {
			_ = c.Post(func(c *server.Conn) { c.Close(codec.CodeKicked, "time is up") }) // fails if it has left
		})
	}
	c.SetValue(h.Device)
	return nil
}

func (p *puppet) Frame(c *server.Conn, f codec.Frame) error {
	if f.Op != codec.OpData {
		return nil
	}
	switch string(f.Payload) {
	case "kick":
		c.Close(codec.CodeKicked, "asked\x1bfor")
	case "leave":
		c.Close(codec.CodeInternalError, "come back")
	case "refuse":
		return &codec.Error{Code: codec.CodeNotAllowed, Text: "not this"}
	case "device":
		return c.Send(codec.OpData, []byte(c.Value().(string)))
	case "long":
		return c.Send(codec.OpData, []byte(strings.Repeat("ü", 5000)))
	default:
		return c.Send(codec.OpData, f.Payload)
	}
	return nil
}

// A second signal ends the waiting for a Close that hangs.
func TestHangUpTwice(t *testing.T) {
	addr, stop, err := startPuppet()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	var got atomic.Bool
	release := make(chan struct{})
	c, err := client.Dial(t.Context(), "tcp://"+addr,
		client.Config{OnData: func([]byte) { got.Store(true); <-release }})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(t.Context(), []byte("x")); err != nil {
		t.Fatal(err)
	}
	for !got.Load() {
		time.Sleep(time.Millisecond)
	}
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGINT
	var failed *settings.Failure
	if err := hangUp(c, signals); !errors.As(err, &failed) {
		t.Errorf("got %v, want a failure that says it was ended at once", err)
	}
	close(release)
	if err := hangUp(c, signals); err != nil {
		t.Error(err)
	}
}
