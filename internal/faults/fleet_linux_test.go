package faults

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/epoll"
)

const (
	// fleetWait is the longest that a fleet waits for events at a time, and so
	// the usual width of the bracket around a close that it sees.
	fleetWait = 2 * time.Millisecond

	// unanswered is how many connections may wait for the answer to their first
	// beat: fewer than any backlog has room for.
	unanswered = 256

	fleetEvents = 1024 // that a fleet takes at a time
)

// monotonic is CLOCK_MONOTONIC, which all processes of a machine share and which
// cannot be set, in ns. It asks the kernel each time, as times of several
// processes are compared to the µs.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // every Linux has it
	}
	return ts.Nano()
}

// A fleet is many connections that beat, served by one goroutine with epoll.
type fleet struct {
	// Static after newFleet.
	spec      fleetSpec
	connected chan struct{} // closed when all are
	settled   chan struct{} // closed when each silent one is closed, or given up

	// Owned by run.
	poller   *epoll.Poller
	dialer   *epoll.Dialer
	members  []*member
	due      dueHeap
	epoch    int64
	open     int // silent ones not closed yet
	waiting  int // connections whose first beat was not answered yet
	rnd      *rand.Rand
	buf      []byte
	before   int64 // see silence.Before
	finished bool  // no more beats
	report   fleetReport
}

// A member is one connection of a fleet.
type member struct {
	fd        int
	next      int64 // when to beat
	stop      time.Duration
	silent    bool
	connected bool
	closed    bool
	owed      int     // bytes of answers that have not come
	sent      []int64 // when the beats were written that they answer; only if traced
	greeted   bool
	lastBeat  int64
	seen      silence
}

// dueHeap is members by the time of their next beat.
type dueHeap []*member

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].next < h[j].next }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(*member)) }
func (h *dueHeap) Pop() any {
	old := *h
	m := old[len(old)-1]
	*h = old[:len(old)-1]
	return m
}

func newFleet(spec fleetSpec) (*fleet, error) {
	target, err := netip.ParseAddrPort(spec.Addr)
	if err != nil {
		return nil, err
	}
	f := &fleet{
		spec: spec, connected: make(chan struct{}), settled: make(chan struct{}),
		epoch: spec.Epoch, open: len(spec.Stops),
		rnd: rand.New(rand.NewPCG(spec.Seed, 1)), buf: make([]byte, 4096),
	}
	var sources []netip.Addr // one for each, so that ports never run short
	for i := range spec.Conns {
		f.members = append(f.members, &member{fd: -1})
		sources = append(sources, netip.AddrFrom4([4]byte{127, 77, byte(i / 250), byte(1 + i%250)}))
	}
	f.dialer = epoll.NewDialer(target, sources)
	for i, k := range f.rnd.Perm(spec.Conns)[:len(spec.Stops)] {
		f.members[k].silent, f.members[k].stop = true, spec.Stops[i]
	}
	f.poller, err = epoll.New(fleetEvents)
	return f, err
}

// run connects all and beats until ctx ends, then waits for the answers that
// are still to come and returns the report. The connections stay open: see
// close.
func (f *fleet) run(ctx context.Context) (*fleetReport, error) {
	dialed := 0
	isSettled := false
	var patience int64 // when to stop waiting for answers
	for {
		start := monotonic()
		for dialed < len(f.members) && f.waiting < unanswered && monotonic()-start < int64(fleetWait) {
			if err := f.dial(dialed); err != nil {
				return nil, fmt.Errorf("connection %d: %w", dialed, err)
			}
			dialed++
		}
		if !f.finished {
			f.beat()
		}
		if err := f.poll(); err != nil {
			return nil, err
		}
		if dialed == len(f.members) && f.waiting == 0 && f.report.Connected == 0 {
			f.report.Connected = monotonic()
			if f.epoch == 0 {
				f.epoch = f.report.Connected
			}
			close(f.connected)
		}
		if !isSettled && f.report.Connected != 0 && (f.open == 0 || f.hopeless()) {
			isSettled = true
			close(f.settled)
		}
		f.report.LongPass = max(f.report.LongPass, time.Duration(monotonic()-start))

		if !f.finished && ctx.Err() != nil {
			f.finished = true
			patience = monotonic() + int64(limit/2)
		}
		if f.finished && (f.allAnswered() || monotonic() > patience) {
			return f.conclude(), nil
		}
	}
}

// dial begins connection i.
func (f *fleet) dial(i int) error {
	fd, err := f.dialer.Dial(i)
	if err != nil {
		return err
	}
	f.members[i].fd = fd
	f.waiting++
	return f.poller.Add(fd, unix.EPOLLIN|unix.EPOLLOUT, epoll.Key{ID: int32(i)})
}

// connect ends the connecting of member i and sends its first beat.
func (f *fleet) connect(i int32) error {
	m := f.members[i]
	m.connected = true
	if err := errors.Join(epoll.ConnectError(m.fd), f.poller.Modify(m.fd, unix.EPOLLIN, epoll.Key{ID: i})); err != nil {
		return fmt.Errorf("connection %d: %w", i, err)
	}
	f.write(m)
	m.next = m.lastBeat + int64(f.rnd.Float64()*float64(f.spec.Beat))
	heap.Push(&f.due, m)
	return nil
}

// beat writes the beats that are due.
func (f *fleet) beat() {
	for len(f.due) > 0 {
		m := f.due[0]
		if m.next > monotonic() {
			return
		}
		if m.closed || m.silent && f.epoch != 0 && m.next >= f.epoch+int64(m.stop) {
			heap.Pop(&f.due)
			continue
		}
		f.write(m)
		f.report.Latest = max(f.report.Latest, time.Duration(m.lastBeat-m.next))
		was := m.next
		m.next += int64(f.spec.Beat)
		if end := f.epoch + int64(m.stop) - 1; f.spec.AtOnce && m.silent && was < end {
			m.next = min(m.next, end)
		}
		heap.Fix(&f.due, 0)
	}
}

func (f *fleet) write(m *member) {
	m.lastBeat = monotonic()
	m.seen.Answered = 0
	if _, err := epoll.Write(m.fd, beat); err != nil {
		// Reading tells what has become of it.
		if err != unix.ECONNRESET && err != unix.EPIPE {
			f.wrong("beat: %v", err)
		}
		return
	}
	m.owed += len(beat)
	f.report.Beats++
	if f.spec.Trace {
		m.sent = append(m.sent, m.lastBeat)
	}
}

// poll waits for events, until the next beat is due or fleetWait is over, and
// reads what has come.
func (f *fleet) poll() error {
	start := monotonic()
	wait := int64(fleetWait)
	if len(f.due) > 0 && !f.finished {
		wait = min(wait, f.due[0].next-start)
	}
	events, err := f.poller.Wait(time.Duration(wait))
	if err != nil {
		return err
	}
	for i := range events {
		id := events[i].Key().ID
		if m := f.members[id]; m.connected {
			f.read(m)
		} else if err := f.connect(id); err != nil {
			return err
		}
	}
	if len(events) < fleetEvents {
		// What was not reported had not happened when this wait began.
		f.before = start
	}
	return nil
}

// read takes what has come for m.
func (f *fleet) read(m *member) {
	for !m.closed {
		n, err := epoll.Read(m.fd, f.buf)
		now := monotonic()
		switch {
		case err == unix.EAGAIN:
			return
		case err == unix.EINTR:
			continue
		case err == unix.ECONNRESET:
			f.closed(m, now, "reset")
		case err != nil:
			f.closed(m, now, err.Error())
		case n == 0:
			f.closed(m, now, "end of stream")
		default:
			f.answers(m, now, f.buf[:n])
			if n < len(f.buf) {
				return // level-triggered: there would be an event
			}
		}
	}
}

func (f *fleet) answers(m *member, now int64, b []byte) {
	for _, v := range b {
		if v != 0 {
			f.wrong("got % x instead of beats", b)
			break
		}
	}
	if m.owed -= len(b); m.owed < 0 {
		f.wrong("more answers than beats")
		m.owed = 0
	}
	f.report.Answers += len(b) / len(beat)
	for n := (m.owed + len(beat) - 1) / len(beat); len(m.sent) > n; m.sent = m.sent[1:] {
		f.report.Trace = append(f.report.Trace, answer{m.sent[0], time.Duration(now - m.sent[0]),
			time.Duration(now - max(f.before, m.sent[0]))})
	}
	if m.owed > 0 {
		return
	}
	m.seen.Answered = now
	f.report.Slowest = max(f.report.Slowest, time.Duration(now-m.lastBeat))
	if !m.greeted {
		m.greeted = true
		f.waiting--
	}
}

func (f *fleet) closed(m *member, now int64, how string) {
	m.closed = true
	_ = f.poller.Remove(m.fd)
	if !m.greeted {
		m.greeted = true
		f.waiting--
	}
	if !m.silent || f.epoch == 0 || m.next < f.epoch+int64(m.stop) {
		f.wrong("a connection that beat was closed %.3f s after its last beat: %s", float64(now-m.lastBeat)/1e9, how)
	}
	if m.silent {
		m.seen.Before, m.seen.Seen, m.seen.How = f.before, now, how
		f.open--
	}
}

func (f *fleet) wrong(format string, args ...any) {
	if f.report.WrongN++; f.report.WrongN <= 10 {
		f.report.Wrong = append(f.report.Wrong, fmt.Sprintf(format, args...))
	}
}

// hopeless reports whether the silent ones have had their time.
func (f *fleet) hopeless() bool {
	last := time.Duration(0)
	for _, stop := range f.spec.Stops {
		last = max(last, stop)
	}
	return monotonic() > f.epoch+int64(last+f.spec.GiveUp)
}

func (f *fleet) allAnswered() bool {
	for _, m := range f.members {
		if m.fd >= 0 && !m.closed && m.owed > 0 {
			return false
		}
	}
	return true
}

func (f *fleet) conclude() *fleetReport {
	for _, m := range f.members {
		switch {
		case m.silent:
			m.seen.LastBeat = m.lastBeat
			f.report.Silent = append(f.report.Silent, m.seen)
		case !m.closed:
			f.report.Live++
			if m.owed > 0 {
				f.wrong("a beat was not answered")
			}
		}
	}
	return &f.report
}

// close resets what is open. Only after run.
func (f *fleet) close() {
	for _, m := range f.members {
		if m.fd >= 0 {
			_ = unix.Close(m.fd)
		}
	}
	_ = f.poller.Close()
}
