package micro

import (
	"container/heap"
	"time"
)

// heaped is container/heap over the deadlines, which belong to one goroutine: no
// lock. A refresh is heap.Fix.
type heaped struct {
	start    time.Time
	now      time.Duration // since start; read once for each turn of the loop, as in own
	fired    func()
	sessions []heapSession
	queue    byDeadline
}

type heapSession struct {
	deadline time.Duration // since start
	index    int           // in the queue; -1: not armed
	_        rest
}

type byDeadline []*heapSession

func (q byDeadline) Len() int           { return len(q) }
func (q byDeadline) Less(i, j int) bool { return q[i].deadline < q[j].deadline }
func (q byDeadline) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *byDeadline) Push(x any) {
	s := x.(*heapSession)
	s.index = len(*q)
	*q = append(*q, s)
}

func (q *byDeadline) Pop() any {
	old := *q
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	s.index = -1
	return s
}

func newHeaped(n int, fired func()) timers {
	h := &heaped{start: time.Now(), fired: fired, sessions: make([]heapSession, n)}
	for i := range h.sessions {
		h.sessions[i].index = -1
	}
	return h
}

func (h *heaped) arm(i int, d time.Duration) {
	h.now = time.Since(h.start)
	h.sessions[i].deadline = h.now + d
	heap.Push(&h.queue, &h.sessions[i])
}

func (h *heaped) refresh(i int) {
	h.now++ // no two reads come at the same time
	h.sessions[i].deadline = h.now + timeout
	heap.Fix(&h.queue, h.sessions[i].index)
}

func (h *heaped) cancel(i int) {
	if at := h.sessions[i].index; at >= 0 {
		heap.Remove(&h.queue, at)
	}
}

func (h *heaped) wait(<-chan struct{}) {
	for len(h.queue) > 0 {
		now := time.Since(h.start)
		if next := h.queue[0].deadline; next > now {
			time.Sleep(next - now)
			continue
		}
		heap.Pop(&h.queue)
		h.fired()
	}
}

func (h *heaped) close() {}
