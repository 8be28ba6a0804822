package server

import (
	"net"
	"sync"
	"testing"
	"time"

	"heartwheel/codec"
)

// A loop whose wake-up has waited for readTurn runs, and no other does.
func TestRunIfLate(t *testing.T) {
	r := newBareRig(t, Config{}, nil)
	l, ran, passed := r.loop, 0, int64(0)
	mono := l.mono
	l.mono = func() int64 { return mono() + passed }
	if l.runIfLate(); l.stats.lag.sum != 0 {
		t.Error("it ran without a wake-up")
	}
	l.mail.now = func() int64 { return mono() + int64(time.Hour) } // so that no time passes but passed
	if err := l.mail.postOwn(func() { ran++ }); err != nil {
		t.Fatal(err)
	}
	passed = int64(time.Hour)
	if l.runIfLate(); ran != 0 {
		t.Error("it ran before readTurn had passed")
	}
	passed += int64(readTurn + time.Second)
	if l.runIfLate(); ran != 1 {
		t.Error("it did not run after readTurn had passed")
	}
	lag := l.stats.lag
	if l.run(); l.stats.lag != lag {
		t.Error("a run that nothing had asked for counts as lag")
	}
}

// Sockets that are ready together do not hold up what else the loop has to do.
func TestTaskBetweenReadySockets(t *testing.T) {
	const conns, work = 64, 3 * time.Millisecond // more than readTurn
	var once sync.Once
	handled, before := 0, make(chan int, 1) // handled is the loop's
	s := start(t, Config{Loops: 1}, hooks{frame: func(c *Conn, _ codec.Frame) error {
		once.Do(func() { _ = c.loop.mail.postOwn(func() { before <- handled }) })
		time.Sleep(work)
		handled++
		return nil
	}})
	var all []net.Conn
	for range conns {
		c := dial(t, s)
		in(t, c)
		all = append(all, c)
	}
	blocked, release := make(chan struct{}), make(chan struct{})
	if err := s.loops[0].mail.postOwn(func() { close(blocked); <-release }); err != nil {
		t.Fatal(err)
	}
	<-blocked
	for _, c := range all {
		_, _ = c.Write(data("x"))
	}
	close(release)
	if n := <-before; n > conns/4 {
		t.Errorf("the task ran after %d of %d sockets, of which each took %s", n, conns, work)
	}
}

// Tasks end their turn after runTasksFor, and are all run in the end.
func TestTasksAreBoundedInTime(t *testing.T) {
	r := newBareRig(t, Config{}, nil)
	l, c, passed := r.loop, r.open(), int64(0)
	mono := l.mono
	l.mono = func() int64 { return mono() + passed }
	own, tasks := 0, 0
	for range 3 {
		_ = l.mail.postOwn(func() { own++; passed += int64(runTasksFor) })
	}
	for range 4 * tasksPerLook {
		_ = c.Post(func(*Conn) { tasks++; passed += int64(runTasksFor) })
	}
	for run := range 4 {
		l.run()
		if wantOwn, want := min(run+1, 3), (run+1)*tasksPerLook; own != wantOwn || tasks != want {
			t.Fatalf("after %d runs %d tasks of the server's own and %d others have run, want %d and %d",
				run+1, own, tasks, wantOwn, want)
		}
		if waits := l.mail.waiting.Load() != 0; waits != (run < 3) {
			t.Fatalf("after run %d another is asked for: %v", run+1, waits)
		}
	}
}

// A loop that does not run holds up the sockets that are on their way to it, and no
// others.
func TestStuckLoopTakesNoNewcomers(t *testing.T) {
	const conns = 2*enteringMost + 64
	s := start(t, Config{Loops: 2}, Echo{})
	blocked, release := make(chan struct{}), make(chan struct{})
	if err := s.loops[0].mail.postOwn(func() { close(blocked); <-release }); err != nil {
		t.Fatal(err)
	}
	<-blocked
	var all []net.Conn
	for range conns {
		c := dial(t, s)
		_, _ = c.Write(beat)
		all = append(all, c)
	}
	eventually(t, "the other loop has what this one does not take", func() bool {
		return s.loops[1].assigned.Load() == conns-enteringMost && len(s.loops[1].entering) == 0
	})
	close(release)
	for _, c := range all {
		expect(t, c, beat)
	}
}
