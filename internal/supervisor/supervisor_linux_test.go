package supervisor

import (
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"heartwheel/internal/handover"
	"heartwheel/internal/settings"
)

// TestCannotStart: when workers do not become ready at first, the supervisor ends
// with the reason and leaves no worker behind. A script stands for a binary that
// only sometimes works.
func TestCannotStart(t *testing.T) {
	heartwheel := filepath.Join(t.TempDir(), "heartwheel")
	if out, err := exec.Command("go", "build", "-o", heartwheel, "../..").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	const notReady = "cannot start: the new process did not say that it is ready; it ended with "
	crash2 := "case $HEARTWHEEL_INHERIT in *worker://2/*) echo no >&2; kill -SEGV $$;; esac\n" +
		"exec " + heartwheel + ` "$@"`
	for what, c := range map[string]struct{ script, want string }{
		"none":      {"echo out of order >&2; exit 3", "worker 0 " + notReady + "exit status 3\nout of order"},
		"one":       {crash2, "worker 2 " + notReady + "signal: segmentation fault"},
		"no binary": {"", "worker 0 cannot start: fork/exec"},
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "heartwheel")
			if c.script != "" {
				if err := os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			r, err := settings.Resolve(settings.FlagLayer(map[string]string{
				"workers": "4",
				"listen":  "tcp://127.0.0.1:0",
				"ops":     "off",
			}))
			if err != nil {
				t.Fatal(err)
			}
			stderr, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer stderr.Close()
			program := &handover.Program{Path: path, Environ: os.Environ(), Stderr: stderr, Log: stderr,
				Args: []string{"serve", "--workers", "4", "--listen", "tcp://127.0.0.1:0", "--ops", "off"}}
			v, err := newSupervisor(r, slog.New(slog.DiscardHandler), Options{Program: program})
			if err != nil {
				t.Fatal(err)
			}
			err = v.run()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it ended with %v, want %s", err, c.want)
			}
			for _, s := range v.slots {
				if s.current != nil || s.old != nil {
					t.Errorf("slot %d has %v and %v", s.index, s.current, s.old)
				}
			}
		})
	}
}

// TestOpenSockets: all sockets share one port. No other process can take it, and
// a port that another process has is refused, even with SO_REUSEPORT.
func TestOpenSockets(t *testing.T) {
	sockets, err := openSockets([]string{"tcp://127.0.0.1:0", "tcp://127.0.0.2:0"}, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSockets(sockets)
	for i, of := range sockets {
		for j, address := range []string{"tcp://127.0.0.1:0", "tcp://127.0.0.2:0"} {
			if of[j].Address != address || of[j].Listener.Addr().String() != sockets[0][j].Listener.Addr().String() {
				t.Errorf("socket %d of slot %d is %s for %s", j, i, of[j].Listener.Addr(), of[j].Address)
			}
		}
	}
	taken := "tcp://" + sockets[0][0].Listener.Addr().String()
	more, err := openSockets([]string{"tcp://127.0.0.1:0", taken}, 2)
	if err == nil || !strings.Contains(err.Error(), "another process has this port; stop it") {
		closeSockets(more)
		t.Errorf("the port of others was taken: %v", err)
	}
	if ln, err := net.Listen("tcp", strings.TrimPrefix(taken, "tcp://")); err == nil {
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
		c, err := net.Dial("tcp", strings.TrimPrefix(taken, "tcp://"))
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

// TestWorkerProgram: workers do not speak to the service manager.
func TestWorkerProgram(t *testing.T) {
	p := workerProgram(&handover.Program{Path: "p", Environ: []string{"A=1", "NOTIFY_SOCKET=/x"}}, 2)
	if got := strings.Join(p.Environ, " "); got != "A=1 GOMAXPROCS=2" {
		t.Error(got)
	}
	p = workerProgram(&handover.Program{Environ: []string{"GOMAXPROCS=7"}}, 2)
	if got := strings.Join(p.Environ, " "); got != "GOMAXPROCS=7" {
		t.Error(got)
	}
}

// TestPlannedEndIsNoRestart: a worker that drains after a replacement ends as
// planned, also when the worker that replaced it has ended meanwhile.
func TestPlannedEndIsNoRestart(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	ended := func(slot int) *worker {
		child, err := (&handover.Program{Path: "/bin/true", Stderr: null, Log: null}).Start(nil)
		if err != nil {
			t.Fatal(err)
		}
		<-child.Done()
		control, theirs, err := handover.NewWorkerControl()
		if err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		return &worker{Child: child, countSlot: slot, control: control, client: new(http.Client), readyAt: time.Now()}
	}
	file, count, err := handover.NewCount(2)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	v := &supervisor{log: slog.New(slog.DiscardHandler), count: count, serving: true, busy: 2,
		events: make(chan func()), done: make(chan struct{})}
	close(v.done) // so that no restart follows in this test
	old, current := ended(0), ended(1)
	old.draining.Store(true)
	s := &slot{old: old, current: current}
	v.slots = []*slot{s}
	v.ended(s, current)
	v.ended(s, old)
	if v.restarts != 1 {
		t.Errorf("%d restarts are counted, want 1: that of the worker that ended unasked", v.restarts)
	}
	if s.current != nil || s.old != nil || v.busy != 0 {
		t.Errorf("the slot has %v and %v, %d are busy", s.current, s.old, v.busy)
	}
}
