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

// testserver VAR starts a server that obeys DATA (see testHandler.Frame) and tokens
// (see testHandler.Hello), and sets a variable to its address.
func cmdTestserver(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "testserver VAR")
	addr, stop, err := startTestserver()
	ts.Check(err)
	ts.Defer(stop)
	ts.Setenv(args[0], addr)
}

func startTestserver() (addr string, stop func(), err error) {
	s, err := server.New(server.Config{Listen: []string{"tcp://127.0.0.1:0"}, Drain: time.Millisecond,
		Spread: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}, &testHandler{})
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s.Addrs()[0].String(), func() { cancel(); <-done }, nil
}

// A testHandler does what its clients ask for.
type testHandler struct{ server.Echo }

func (*testHandler) Hello(c *server.Conn, h codec.Hello) error {
	switch h.Token {
	case "bad":
		return errors.New("no such token")
	case "brief":
		time.AfterFunc(300*time.Millisecond, func() {
			_ = c.Post(func(c *server.Conn) { c.Close(codec.CodeKicked, "time is up") }) // fails if c has closed
		})
	}
	c.SetValue(h.Device)
	return nil
}

func (*testHandler) Frame(c *server.Conn, f codec.Frame) error {
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

// A second signal ends the wait for a Close that hangs.
func TestCloseClientTwice(t *testing.T) {
	addr, stop, err := startTestserver()
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
	if err := closeClient(c, signals); !errors.As(err, &failed) {
		t.Errorf("got %v, want a *settings.Failure", err)
	}
	close(release)
	if err := closeClient(c, signals); err != nil {
		t.Error(err)
	}
}
