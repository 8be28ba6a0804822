package cli

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSupervisorCannotStart: when workers do not get ready at first, supervise
// returns with the reason, and leaves nobody behind. A script stands for a
// binary that only sometimes works.
func TestSupervisorCannotStart(t *testing.T) {
	heartwheel, err := exec.LookPath("heartwheel")
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ script, want string }{
		"none": {"echo out of order >&2; exit 3", "worker 0 cannot start: the new process did not say that it is ready; it ended with exit status 3\nout of order"},
		"one": {`case $HEARTWHEEL_INHERIT in *worker://2/*) echo no >&2; kill -SEGV $$;; esac; exec ` + heartwheel + ` "$@"`,
			"worker 2 cannot start: the new process did not say that it is ready; it ended with signal: segmentation fault"},
		"no binary": {"", "worker 0 cannot start: fork/exec"},
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "heartwheel")
			if c.script != "" {
				if err := os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			again := func() (*resolved, error) {
				return resolve(flagLayer(map[string]any{"workers": "4", "listen": "tcp://127.0.0.1:0", "ops": "off"}))
			}
			r, err := again()
			if err != nil {
				t.Fatal(err)
			}
			stderr, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer stderr.Close()
			v := &supervisor{again: again, program: &program{path: path, environ: os.Environ(), stderr: stderr,
				args: []string{"serve", "--workers", "4", "--listen", "tcp://127.0.0.1:0", "--ops", "off"}}}
			err = supervise(r, slog.New(slog.NewTextHandler(io.Discard, nil)), v)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it ended with %v, want %s", err, c.want)
			}
			for _, p := range v.places {
				if p.current != nil || p.old != nil {
					t.Errorf("place %d has %v and %v", p.index, p.current, p.old)
				}
			}
		})
	}
}

// TestOpenSockets: all share one port, which nobody else can take any more, and
// nobody is joined who has it already, not even with SO_REUSEPORT.
func TestOpenSockets(t *testing.T) {
	sockets, err := openSockets([]string{"tcp://127.0.0.1:0", "tcp://127.0.0.2:0"}, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSockets(sockets)
	for i, of := range sockets {
		for j, address := range []string{"tcp://127.0.0.1:0", "tcp://127.0.0.2:0"} {
			if of[j].Address != address || of[j].Listener.Addr().String() != sockets[0][j].Listener.Addr().String() {
				t.Errorf("socket %d of place %d is %s for %s", j, i, of[j].Listener.Addr(), of[j].Address)
			}
		}
	}
	taken := tcpScheme + sockets[0][0].Listener.Addr().String()
	if more, err := openSockets([]string{"tcp://127.0.0.1:0", taken}, 2); err == nil || !strings.Contains(err.Error(), "another process has this port; stop it") {
		closeSockets(more)
		t.Errorf("the port of others was taken: %v", err)
	}
	if ln, err := net.Listen("tcp", strings.TrimPrefix(taken, tcpScheme)); err == nil {
		ln.Close()
		t.Error("another took the port")
	}
	// They are dealt connections: with 60 none is without but once in 10¹⁰.
	got := make(chan int, 100)
	for i, of := range sockets {
		go func() {
			for {
				c, err := of[0].Listener.Accept()
				if err != nil {
					return
				}
				c.Close()
				got <- i
			}
		}()
	}
	count := map[int]int{}
	for range 60 {
		c, err := net.Dial("tcp", strings.TrimPrefix(taken, tcpScheme))
		if err != nil {
			t.Fatal(err)
		}
		count[<-got]++
		c.Close()
	}
	if len(count) != 3 {
		t.Errorf("only these have got any: %v", count)
	}
}

// TestUnderlingAccepts: what a supervisor cannot change is found by a worker
// that is to begin.
func TestUnderlingAccepts(t *testing.T) {
	sockets, err := openSockets([]string{"tcp://127.0.0.1:0", "tcp://127.0.0.1:0"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSockets(sockets)
	for _, c := range []struct{ listen, ops, workers, want string }{
		{"tcp://127.0.0.1:0,tcp://127.0.0.1:0", "off", "auto", ""},
		{"tcp://127.0.0.1:0", "off", "2", "listen was tcp://127.0.0.1:0,tcp://127.0.0.1:0 and is now tcp://127.0.0.1:0: it cannot change"},
		{"tcp://127.0.0.1:0,tcp://127.0.0.1:0", ":1", "2", "ops was off and is now :1: it cannot change"},
		{"tcp://127.0.0.1:0,tcp://127.0.0.1:0", "off", "3", "workers was 2 and is now 3: it cannot change"},
		{"tcp://127.0.0.1:0,tcp://127.0.0.1:0", "off", "1000", "1000 workers need"},
	} {
		r, err := resolve(flagLayer(map[string]any{"listen": c.listen, "ops": c.ops, "workers": c.workers, "max-connections": "1500"}))
		if err != nil {
			t.Fatal(err)
		}
		u := &underling{count: 2, ops: "off"}
		if err := u.accepts(r, sockets[0], 1000); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestControl has both ends of a control socket in this process: orders,
// connections, last words, and the end.
func TestControl(t *testing.T) {
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	u, err := newUnderling("3/5/2/127.0.0.1:9090", theirs)
	theirs.Close()
	if err != nil || u.index != 3 || u.count != 5 || u.loops != 2 || u.ops != "127.0.0.1:9090" {
		t.Fatalf("%+v, %v", u, err)
	}
	u.begin()
	w := &worker{control: ours}
	for i := range 3 {
		said := make(chan error, 1)
		go func() {
			c, err := u.Accept()
			if err == nil {
				_, err = fmt.Fprint(c, i)
				c.Close()
			}
			said <- err
		}()
		c, err := w.dial()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(c)
		c.Close()
		if string(text) != fmt.Sprint(i) || err != nil || <-said != nil {
			t.Errorf("through a passed connection came %q, %v", text, err)
		}
	}
	for range 2 { // the second says nothing new
		if err := w.order(orderDrain, nil); err != nil {
			t.Fatal(err)
		}
	}
	if o := <-u.orders; o.deserted {
		t.Error("an order counts as the supervisor's end")
	}
	u.Close()
	if _, err := u.Accept(); err != net.ErrClosed {
		t.Errorf("after Close comes %v", err)
	}
	go func() { _ = w.order(orderGo, nil) }()
	begun := time.Now()
	u.lastWords()
	if time.Since(begun) > lastPatience {
		t.Error("it waited for an order that had come")
	}
	<-u.dismissed
	for len(u.orders) > 0 {
		<-u.orders
	}
	ours.Close()
	if o := <-u.orders; !o.deserted {
		t.Error("the supervisor's end counts as an order")
	}
	for _, text := range []string{"", "1", "1/2", "1/2/off", "x/2/1/off", "1/y/1/off", "1/2/z/off"} {
		if _, err := newUnderling(text, os.Stdin); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// TestWorkerProgram: workers do not speak to the service manager.
func TestWorkerProgram(t *testing.T) {
	p := workerProgram(&program{path: "p", environ: []string{"A=1", "NOTIFY_SOCKET=/x"}}, 2)
	if got := strings.Join(p.environ, " "); got != "A=1 GOMAXPROCS=2" {
		t.Error(got)
	}
	p = workerProgram(&program{environ: []string{"GOMAXPROCS=7"}}, 2)
	if got := strings.Join(p.environ, " "); got != "GOMAXPROCS=7" {
		t.Error(got)
	}
}

func TestCountIsShared(t *testing.T) {
	f, c, err := newCount(4)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	other, err := mapCount(f, 3)
	if err != nil {
		t.Fatal(err)
	}
	if c.Total() != 0 || other.Total() != 0 {
		t.Error("it does not begin with zero")
	}
	if _, err := mapCount(f, 4); err == nil {
		t.Error("line 4 of 4 was taken")
	}
}
