// Package peer is what the servers that heartwheel is compared with have in
// common: the flags, the one line that says where a server listens, the runtime
// figures it is asked for, and the wire. What differs between them, how they
// read, write and keep their deadlines, is in their own main packages.
//
// The contract, as seen by the harness:
//
//	NAME -addr 127.0.0.1:0 -timeout 37.5s -procs 0 -loops 0
//	stdout: "listening ADDR"
//	SIGUSR1: one line of JSON, Figures, on stdout
//	SIGTERM, SIGINT: exit 0, at once
//
// A server answers every whole frame of at most MaxFrame bytes with the same
// bytes, and ends a connection that says it has a longer one. TCP_NODELAY is
// on, the backlog is the kernel's net.core.somaxconn, the garbage collector is
// left as it is.
package peer

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// Options is what the flags say.
type Options struct {
	Addr    string        // HOST:PORT to listen on
	Timeout time.Duration // idle timeout, for servers that have one
	Loops   int           // event loops, for servers that have them; at least 1
}

// Conns is the number of open connections, as far as the server counts them.
var Conns atomic.Int64

// Start reads the flags, sets GOMAXPROCS, and answers signals from then on. It
// ends the process if a flag is wrong. It is called once, first thing in main;
// a server that has a flag of its own defines it before.
func Start() Options {
	var o Options
	var procs int
	flag.StringVar(&o.Addr, "addr", "127.0.0.1:0", "listen on this `host:port`")
	flag.DurationVar(&o.Timeout, "timeout", 37500*time.Millisecond, "idle timeout, for servers that have one")
	flag.IntVar(&procs, "procs", 0, "GOMAXPROCS; 0: as Go has it")
	flag.IntVar(&o.Loops, "loops", 0, "event loops, for servers that have them; 0: GOMAXPROCS")
	flag.Parse()
	if flag.NArg() != 0 || o.Timeout <= 0 || procs < 0 || o.Loops < 0 {
		fmt.Fprintln(os.Stderr, "arguments beside flags, a timeout that is not positive, or a negative number")
		flag.Usage()
		os.Exit(2)
	}
	if procs > 0 {
		runtime.GOMAXPROCS(procs)
	}
	if o.Loops == 0 {
		o.Loops = runtime.GOMAXPROCS(0)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	go func() {
		var forced forcedGC
		for s := range signals {
			if s != syscall.SIGUSR1 {
				os.Exit(0)
			}
			forced.report(os.Stdout)
		}
	}()
	return o
}

// Listen opens the listener of a server that uses Go's: without the keep-alive
// probes that Go sends every 15 s, so that idle connections are idle.
func (o Options) Listen() (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	return lc.Listen(context.Background(), "tcp", o.Addr)
}

// Listening tells the harness where the server listens.
func Listening(addr string) { fmt.Println("listening", addr) }

// Fail ends the process: the server cannot go on.
func Fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
