package server

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

// testMailbox returns an open mailbox, its clock and a count of its signals.
func testMailbox() (m *mailbox, now *int64, signals *int) {
	m, now, signals = new(mailbox), new(int64), new(int)
	m.now = func() int64 { return *now }
	m.open(func() { *signals++ })
	return m, now, signals
}

func TestMailboxKeepsOrderAndSignalsOnce(t *testing.T) {
	m, now, signals := testMailbox()
	var ran []int
	for i := range 100 {
		*now = int64(1000 + i)
		if err := m.post(task{f: func(*Conn) { ran = append(ran, i) }}); err != nil {
			t.Fatal(err)
		}
	}
	m.wake()
	if *signals != 1 {
		t.Fatalf("%d signals for posts that nobody had looked at, want 1", *signals)
	}
	if since := m.ack(); since != 1000 {
		t.Fatalf("the wake-up was sent at %d, not 1000", since)
	}
	tasks := m.swap(nil)
	for _, k := range tasks {
		k.f(nil)
	}
	for i, n := range ran {
		if i != n {
			t.Fatalf("task %d ran as number %d", n, i)
		}
	}
	if len(ran) != 100 {
		t.Fatalf("%d of 100 tasks came out", len(ran))
	}
	m.wake()
	if *signals != 2 {
		t.Fatalf("%d signals, want another one after the loop has looked", *signals)
	}
	if tasks = m.swap(tasks); len(tasks) != 0 {
		t.Fatalf("%d tasks came out twice", len(tasks))
	}
}

func TestMailboxBusy(t *testing.T) {
	m, _, _ := testMailbox()
	for i := range 65536 {
		if err := m.post(task{}); err != nil {
			t.Fatalf("post %d: %v", i, err)
		}
	}
	if err := m.post(task{}); !errors.Is(err, ErrBusy) {
		t.Fatalf("post 65537: %v, want ErrBusy", err)
	}
	m.ack()
	m.swap(nil)
	if err := m.post(task{}); err != nil {
		t.Fatalf("post after the loop took what waited: %v", err)
	}
}

func TestMailboxClosed(t *testing.T) {
	var never mailbox
	if err := never.post(task{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("post before the loop runs: %v, want ErrClosed", err)
	}
	m, _, signals := testMailbox()
	_ = m.post(task{})
	m.close()
	if err := m.post(task{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("post after close: %v, want ErrClosed", err)
	}
	m.wake()
	if *signals != 1 {
		t.Fatalf("%d signals, want none after close", *signals)
	}
	if tasks := m.swap(nil); len(tasks) != 0 {
		t.Fatalf("%d tasks outlived close", len(tasks))
	}
}

// Several goroutines post while one takes: nothing is lost, each poster's
// tasks come in its order, and whatever is posted is followed by a signal.
func TestMailboxConcurrent(t *testing.T) {
	const posters, each = 8, 2000
	var m mailbox
	m.now = func() int64 { return 1 }
	signal := make(chan struct{}, 1) // one deep: the mailbox promises no second one before ack
	m.open(func() { signal <- struct{}{} })
	var wg sync.WaitGroup
	var last [posters]int // taker only
	for p := range posters {
		wg.Go(func() {
			for i := range each {
				if err := m.post(task{f: func(*Conn) {
					if last[p] != i {
						t.Errorf("poster %d: task %d came as number %d", p, i, last[p])
					}
					last[p]++
				}}); err != nil {
					t.Errorf("post: %v", err)
				}
			}
		})
	}
	var spare []task
	for n := 0; n < posters*each; {
		<-signal
		m.ack()
		spare = m.swap(spare)
		for _, k := range spare {
			k.f(nil)
		}
		n += len(spare)
	}
	wg.Wait()
}

// A loop that cannot take all that waits in one turn is woken until it has.
func TestMailboxWakesWhileTasksWait(t *testing.T) {
	m, _, signals := testMailbox()
	_ = m.post(task{})
	m.ack() // the loop runs, and still has earlier tasks to do
	m.wakeIf(false)
	if *signals != 2 {
		t.Fatalf("%d signals; want a second one, as a task waits", *signals)
	}
	m.ack()
	m.swap(nil)
	m.wakeIf(false)
	if *signals != 2 {
		t.Fatalf("%d signals; want no third one, as nothing waits", *signals)
	}
}

// A wake-up runs only so many tasks: the rest runs all the same, without anybody
// waking the loop again, and so does what is posted meanwhile.
func TestMailboxMoreThanOneRun(t *testing.T) {
	for _, meanwhile := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			const n = 3*tasksPerRun + 5
			r := newRig(t, Config{}, nil)
			c, gone := r.open(), r.open()
			var ran []int
			post := func(i int, also func()) {
				if err := c.Post(func(*Conn) { ran = append(ran, i); also() }); err != nil {
					t.Error(err)
				}
			}
			r.do(func() { // the loop does not look before all are there
				for i := range n {
					post(i, func() {
						if i < meanwhile {
							post(n, func() {})
						}
					})
				}
				_ = gone.Post(func(*Conn) { t.Error("a task ran for a connection that had closed") })
				r.loop.lost(gone, PeerReset)
			})
			r.wait(0)
			for i, k := range ran {
				if i != k {
					t.Fatalf("task %d ran as number %d", k, i)
				}
			}
			if len(ran) != n+meanwhile {
				t.Fatalf("%d tasks ran, want %d", len(ran), n+meanwhile)
			}
		})
	}
}

// A wake that comes once the loop has read its clock asks for another run: it
// may be the alarm of a deadline that this run took for one to come.
func TestWakeWhileTheLoopRuns(t *testing.T) {
	r := newBareRig(t, Config{}, nil)
	l, signals := r.loop, 0
	l.mail.open(func() { signals++ })
	l.mail.wake()
	l.mail.wake()
	if signals != 1 {
		t.Fatalf("two wakes are %d signals, want 1", signals)
	}
	mono := l.mono
	l.mono = func() int64 { l.mail.wake(); return mono() } // read right after the clock
	l.run()
	if signals != 2 {
		t.Errorf("%d signals, want one for the wake in the run", signals)
	}
}

// TestMailboxOwnTasks: the server's own tasks get through when the application's
// bound is reached, and come first.
func TestMailboxOwnTasks(t *testing.T) {
	m, _, _ := testMailbox()
	for range maxTasks {
		if err := m.post(task{}); err != nil {
			t.Fatal(err)
		}
	}
	ran := false
	if err := m.postOwn(func() { ran = true }); err != nil {
		t.Fatalf("a task of the server's own: %v", err)
	}
	m.ack()
	for _, f := range m.swapOwn(nil) {
		f()
	}
	if !ran {
		t.Error("it did not run")
	}
	m.close()
	if err := m.postOwn(func() {}); err != ErrClosed {
		t.Errorf("after close: %v, want ErrClosed", err)
	}
}
