package engine

import (
	"net/netip"
	"os/exec"
	"time"
)

// A Job is the work of one process of the generator. It travels to worker processes
// as JSON.
type Job struct {
	Load    Load           `json:"load"`
	First   int            `json:"first"` // index of its first event loop
	Of      int            `json:"of"`    // all event loops, of every process
	Target  netip.AddrPort `json:"target"`
	Sources []netip.Addr   `json:"sources"`
	Timeout time.Duration  `json:"timeout"` // T; 0: unknown
}

// A Generator is the event loops of a run, in this process or in worker
// processes. Its methods are for one goroutine.
type Generator struct {
	loops    int
	messages chan Message
	send     func(Order)
	kill     func()
	wait     func()
}

// messagesKept bounds the messages that wait to be read: an event loop must not
// wait for a terminal.
const messagesKept = 4096

// Start starts the event loops of the load, in this process or, if it has several,
// in worker processes. command makes the command line of a worker, which calls
// Worker. The loops wait for an order with Start.
func Start(j *Job, command func() *exec.Cmd) (*Generator, error) {
	if j.Load.Processes > 1 {
		return startProcesses(j, command)
	}
	g := &Generator{loops: j.Of, messages: make(chan Message, messagesKept)}
	orders, done, err := startLoops(j, g.messages)
	if err != nil {
		return nil, err
	}
	g.send = func(o Order) {
		for _, in := range orders {
			in <- o // has room for more orders than a run has
		}
	}
	g.kill = func() { g.send(Order{Stop: true}) }
	g.wait = func() { <-done }
	return g, nil
}

// Loops is the number of event loops.
func (g *Generator) Loops() int { return g.loops }

// Messages has the messages of all loops. The last one of each has Result, Error or
// Lost.
func (g *Generator) Messages() <-chan Message { return g.messages }

// Send sends an order to all loops. It does not wait for them.
func (g *Generator) Send(o Order) { g.send(o) }

// Kill ends the loops at once. They may send no more messages.
func (g *Generator) Kill() { g.kill() }

// Wait returns when all loops have ended. Call it after their last messages, or
// after Kill.
func (g *Generator) Wait() { g.wait() }
