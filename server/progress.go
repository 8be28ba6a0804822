package server

import "time"

const (
	// stallBytes is what a peer has to take of its waiting bytes within WriteStall;
	// all of them if there are fewer.
	stallBytes = 4 << 10

	// stallLooks is how often that is checked within WriteStall, so a stall is
	// detected at most an eighth of it late.
	stallLooks = 8
)

// A progress measures whether a peer takes what waits for it. Only acknowledged
// bytes count: a socket's buffer takes bytes in steps that have little to do with
// the peer. Times are loop clock. Loop only.
type progress struct {
	written int64 // bytes that have left the outbox since it began to fill, and those in the socket before
	goal    int64 // how many of them the peer must have by since + WriteStall
	since   int64 // when the goal was set
	lookAt  int64 // when to look next
}

// start begins to watch a peer. unacked is what its socket holds, waiting what
// its outbox does.
func (p *progress) start(now int64, stall time.Duration, unacked, waiting int) {
	*p = progress{written: int64(unacked)}
	p.setGoal(now, stall, unacked, waiting)
}

// setGoal sets the next goal.
func (p *progress) setGoal(now int64, stall time.Duration, unacked, waiting int) {
	p.goal = p.written - int64(unacked) + int64(min(stallBytes, unacked+waiting))
	p.since, p.lookAt = now, now+int64(stall)/stallLooks
}

// stalled reports whether the peer has missed the goal, and sets the next one if it
// has reached it.
func (p *progress) stalled(now int64, stall time.Duration, unacked, waiting int) (stalled bool) {
	if p.written-int64(unacked) >= p.goal {
		p.setGoal(now, stall, unacked, waiting)
		return false
	}
	p.lookAt = min(now+int64(stall)/stallLooks, p.since+int64(stall))
	return now >= p.since+int64(stall)
}
