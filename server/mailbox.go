package server

import (
	"sync"
	"sync/atomic"
)

// maxTasks bounds what the application posts to a loop; beyond it Post fails with
// ErrBusy.
const maxTasks = 65536

// A task is what the application posts for a connection.
type task struct {
	conn *Conn
	f    func(*Conn)
}

// A mailbox is the one way into a loop. Any number of posts and wakes before
// the loop looks cost one wake-up of it. Safe for concurrent use.
type mailbox struct {
	now     func() int64 // monotonic ns
	waiting atomic.Int64 // when the wake-up that is under way was sent; 0: none is

	mu     sync.Mutex
	tasks  []task
	own    []func() // the server's own tasks: they overtake the others and have no bound but what causes them
	signal func()   // wakes the loop; nil before it runs and after it stopped
}

func (m *mailbox) post(t task) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.signal == nil {
		return ErrClosed
	}
	if len(m.tasks) >= maxTasks {
		return ErrBusy
	}
	m.tasks = append(m.tasks, t)
	m.wakeLocked()
	return nil
}

// postOwn has the loop run f, ahead of what the application has posted. It fails
// with ErrClosed alone.
func (m *mailbox) postOwn(f func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.signal == nil {
		return ErrClosed
	}
	m.own = append(m.own, f)
	m.wakeLocked()
	return nil
}

// wake asks the loop to run soon.
func (m *mailbox) wake() { m.wakeIf(true) }

// wakeIf asks the loop to run soon if must is set or tasks wait.
func (m *mailbox) wakeIf(must bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if must || len(m.tasks) > 0 || len(m.own) > 0 {
		m.wakeLocked()
	}
}

func (m *mailbox) wakeLocked() {
	if m.signal == nil || m.waiting.Load() != 0 {
		return
	}
	m.waiting.Store(max(m.now(), 1))
	m.signal()
}

// open lets wake-ups through; close ends them and drops what waits.
func (m *mailbox) open(signal func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.signal = signal
}

func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.signal, m.tasks, m.own = nil, nil, nil
}

// ack records that the loop runs, so that the next wake is a new one, and returns
// when it was woken; 0: it was not.
func (m *mailbox) ack() (since int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiting.Swap(0)
}

// swapOwn is swap for the server's own tasks.
func (m *mailbox) swapOwn(spare []func()) []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	own := m.own
	m.own = spare[:0]
	return own
}

// swap returns the waiting tasks and keeps the memory of spare for the next ones.
func (m *mailbox) swap(spare []task) []task {
	m.mu.Lock()
	defer m.mu.Unlock()
	tasks := m.tasks
	m.tasks = spare[:0]
	return tasks
}
