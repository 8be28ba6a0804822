package faults

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"heartwheel/codec"
)

// A holder is a peer that makes the server keep memory for it.
type holder struct {
	name string
	send []byte
	read int // bytes at a time, every 1.5 s; 0: it never reads
}

const holderFrame = 60 << 10

var holders = []holder{
	// Most of a frame.
	{"unfinished frames", codec.AppendData(nil, make([]byte, holderFrame+2048))[:holderFrame], 0},
	// Frames whose answers are never read, or so slowly that they never end.
	{"unread answers", repeatData(16, 16<<10), 0},
	{"slow readers", repeatData(16, 16<<10), 6 << 10},
}

func repeatData(n, size int) (b []byte) {
	for range n {
		b = codec.AppendData(b, make([]byte, size))
	}
	return b
}

// TestHolders is the other half of case 15: peers make the server hold far more than
// it has memory for, in unfinished frames or in answers that they do not read. The
// limit is 1.3 × what the beating peers alone need, of a cgroup or --memory-limit, for
// one process or for workers. The kernel never has to kill, no beating peer is lost,
// and newcomers are admitted within a second after the holders have gone.
func TestHolders(t *testing.T) {
	if size == smoke {
		t.Skip("from the short form on: go test ./internal/faults -form short")
	}
	for i, kind := range holders {
		for _, workers := range []int{0, 2} {
			for _, flag := range []bool{false, true} {
				if size == short && (i+workers/2)%2 == 0 == flag {
					continue // half of them
				}
				name := fmt.Sprintf("%s, workers=%d, flag=%v", kind.name, workers, flag)
				t.Run(name, func(t *testing.T) { testHolders(t, name, kind, workers, flag) })
			}
		}
	}
}

func testHolders(t *testing.T, name string, kind holder, workers int, flag bool) {
	live, most := sized(2500, 2500, 7000), sized(500, 1500, 3000)
	args := []string{"--workers", strconv.Itoa(workers), "--write-stall", "1m"}
	s, group := memoryServer(t, 0, args...)
	p := newDialPool(t, s.addr)
	p.dial(live, never)
	p.echo()
	need, resident := used(group), int64(s.metrics().value("process_resident_memory_bytes"))
	p.leave(live)
	s.stop(syscall.SIGKILL)

	room := need * 13 / 10
	if flag {
		room = (resident + int64(live)*4096) * 13 / 10 // it counts what this cgroup does not
		need = resident
		args, room = append(args, "--memory-limit", strconv.FormatInt(room, 10)), 0
	}
	s, group = memoryServer(t, room, args...)
	p = newDialPool(t, s.addr)
	p.dial(live, never)
	if lost := p.echo(); lost > 0 || len(p.admitted) < live*9/10 {
		t.Fatalf("only %d of %d were admitted, %d lost: %v", len(p.admitted), live, lost, p.wrong)
	}

	quit := make(chan struct{})
	var all sync.WaitGroup
	var sent atomic.Int64
	for range most {
		all.Go(func() { sent.Add(kind.hold(s.addr, quit)) })
	}
	peak, lost := int64(0), 0
	for end := time.Now().Add(sized[time.Duration](1, 4, 8) * time.Second); time.Now().Before(end); {
		lost += p.echo()
		peak = max(peak, used(group))
	}
	m := s.metrics()
	closed := m.by("heartwheel_closed_total")
	close(quit)
	lag := ownLag()
	all.Wait()
	began := time.Now()
	for before := len(p.admitted); len(p.admitted) == before && time.Since(began) < limit; {
		p.one()
	}
	took := time.Since(began)
	lost += p.echo()
	figure(t, 15, "%s: %d peers sent %d MB beside %d that beat, limit 1.3 × %d kB: used at most %d kB, closed as "+
		"shed %.0f, %d beating ones lost, oom_kill %d, a newcomer admitted %s after they had left",
		name, most, sent.Load()>>20, live, need>>10, peak>>10, closed["shed"], lost,
		group.value("memory.oom_control", "oom_kill"), took.Round(time.Millisecond))
	if kills := group.value("memory.oom_control", "oom_kill"); kills != 0 {
		t.Errorf("the kernel killed %d times", kills)
	}
	if wait := lag(); took > time.Second+wait {
		t.Errorf("a newcomer was admitted %s after the holders had left, want a second at most (and %s)", took, wait)
	}
	if closed["shed"] == 0 && m.by("heartwheel_refused_total")["memory"] == 0 {
		t.Error("nothing was short: the case shows nothing")
	}
	s.check()
}

// hold connects, sends, and reads slowly until quit. It returns how much was sent.
// The server may refuse it or close it at any time.
func (h *holder) hold(addr string, quit chan struct{}) (sent int64) {
	p := &slowPeer{segment: 1400}
	if dialSlowFrom(nil, "127.0.0.1", addr, p) != nil {
		return 0
	}
	defer p.reset()
	_ = p.SetWriteDeadline(time.Now().Add(5 * time.Second))
	n, err := p.Write(h.send)
	for err == nil {
		select {
		case <-quit:
			return int64(n)
		case <-time.After(1500 * time.Millisecond):
		}
		if h.read > 0 {
			_ = p.SetReadDeadline(time.Now().Add(time.Second))
			_, _ = p.Read(make([]byte, h.read))
		}
		_, err = p.Write(nil)
	}
	<-quit
	return int64(n)
}
