package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

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

// TestToken: --token wins over --token-file, which wins over the environment.
func TestToken(t *testing.T) {
	file := func(content string) string {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, env := file("of the file\n"), []string{"HEARTWHEEL_TOKEN=of the environment"}
	for _, c := range []struct {
		args, environ []string
		want          string
		wrong         string // the error, in place of a token
	}{
		{nil, nil, "", ""},
		{nil, env, "of the environment", ""},
		{nil, []string{"HEARTWHEEL_TOKEN="}, "", ""},
		{[]string{"--token-file", good}, env, "of the file", ""},
		{[]string{"--token-file", good, "--token", "of the flag"}, env, "of the flag", ""},
		{[]string{"--token", ""}, env, "", ""},
		{[]string{"--token-file", file("a b\r\n")}, nil, "a b", ""},
		{[]string{"--token-file", file("no line break")}, nil, "no line break", ""},
		{[]string{"--token-file", file("two\n\n")}, nil, "two\n", ""},
		{[]string{"--token-file", file("")}, env, "", "is empty; it must hold the token"},
		{[]string{"--token-file", file("\n")}, env, "", "is empty; it must hold the token"},
		{[]string{"--token-file", file("\xff\n")}, env, "", "is not UTF-8"},
		{[]string{"--token-file", "/nowhere"}, env, "", "cannot be read: "},
		{[]string{"--token-file", ""}, env, "", "cannot be read: "},
	} {
		f := newClientFlags(&cobra.Command{Use: "x"})
		f.addToken()
		if err := f.cmd.ParseFlags(c.args); err != nil {
			t.Fatal(err)
		}
		var cfg client.Config
		f.setToken(&cfg, c.environ)
		if c.wrong != "" {
			var usage *settings.UsageError
			if !errors.As(f.err(), &usage) || len(usage.Lines) != 1 || !strings.Contains(usage.Lines[0], c.wrong) {
				t.Errorf("%q: %v, want %q", c.args, f.err(), c.wrong)
			}
			continue
		}
		got := cfg.Token
		if cfg.TokenFunc != nil {
			got, _ = cfg.TokenFunc(t.Context(), "h:1")
		}
		if got != c.want || f.err() != nil || cfg.Validate() != nil {
			t.Errorf("%q, %q: token %q, %v, %v; want %q", c.args, c.environ, got, f.err(), cfg.Validate(), c.want)
		}
	}

	// A file is read again for each connection, a pipe once.
	f := newClientFlags(&cobra.Command{Use: "x"})
	f.addToken()
	_ = f.cmd.ParseFlags([]string{"--token-file", good})
	var cfg client.Config
	f.setToken(&cfg, nil)
	if err := os.WriteFile(good, []byte("renewed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := cfg.TokenFunc(t.Context(), "h:1"); got != "renewed" || err != nil {
		t.Errorf("token %q, %v of the new file", got, err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() { _ = os.WriteFile(fifo, []byte("piped\n"), 0) }()
	_ = f.cmd.ParseFlags([]string{"--token-file", fifo})
	f.setToken(&cfg, nil)
	for range 2 {
		if got, err := cfg.TokenFunc(t.Context(), "h:1"); got != "piped" || err != nil {
			t.Errorf("token %q, %v of a pipe", got, err)
		}
	}
}
