package server

import "heartwheel/codec"

// strangers are the connections that owe their first message, where one is
// required. They cost a peer nothing, so they may take only part of the connection
// limit: one more ends the oldest. A client that sends its first message at once
// is a stranger for a round trip. Loop only.
type strangers struct {
	most  int // 0: no limit
	waits map[*Conn]struct{}
	queue []*Conn // those of waits, oldest first, and some that have left it
}

// strangersLeast is the least that a loop lets wait; strangersShare is the part of
// the connection limit that all loops do.
const (
	strangersLeast = 64
	strangersShare = 2
)

// strangersMost returns how many may wait on each loop of a server.
func strangersMost(connections, loops int) int {
	return max(strangersLeast, connections/strangersShare/loops)
}

// expect adds c, and closes the oldest if there are too many.
func (l *loop) expect(c *Conn) {
	s := &l.strangers
	if s.most == 0 {
		return
	}
	if s.waits == nil {
		s.waits = map[*Conn]struct{}{}
	}
	s.waits[c] = struct{}{}
	s.queue = append(s.queue, c)
	if len(s.waits) > s.most {
		l.end(s.oldest(), Notice{Reason: HelloLimit, Code: codec.CodeOverloaded, After: l.cfg.Spread,
			Text: "too many connections have not sent HELLO; this one was the oldest"})
	}
	if len(s.queue) > 2*len(s.waits)+strangersLeast {
		s.compact()
	}
}

// met takes c out, which has sent its first message or has ended.
func (s *strangers) met(c *Conn) { delete(s.waits, c) }

// oldest takes out the oldest. There must be one.
func (s *strangers) oldest() *Conn {
	for {
		c := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		if _, ok := s.waits[c]; ok {
			delete(s.waits, c)
			return c
		}
	}
}

// compact drops from the queue those that have left. Between two calls as many
// connections have come as are looked at.
func (s *strangers) compact() {
	kept := make([]*Conn, 0, 2*len(s.waits))
	for _, c := range s.queue {
		if _, ok := s.waits[c]; ok {
			kept = append(kept, c)
		}
	}
	s.queue = kept
}
