package loadtest

import (
	"flag"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var independent = flag.Bool("independent", false,
	"compare the latency with that of another client; needs a machine with nothing else to do")

// TestIndependentClient compares the service time with that of the simplest possible
// client: blocking sockets, one frame at a time. Both load the same server in turns, at
// the same rate; the result is the median ratio of the turns, as a single turn on a
// shared machine is off by a fifth.
//
//	go test ./loadtest -run IndependentClient -independent -v
func TestIndependentClient(t *testing.T) {
	if !*independent {
		t.Skip("compares times: run it on a machine with nothing else to do, with -independent")
	}
	own, err := startServer([]string{"--long"}, command)
	if err != nil {
		t.Fatal(err)
	}
	defer own.stop()
	target := netip.MustParseAddrPort(own.addr)
	const turns, conns, rounds, interval = 21, 100, 25, 100 * time.Millisecond
	var ours, theirs [2][]float64 // p50 and p90 of each turn, in µs
	for range turns {
		r := doRun(t, nil, "target", "tcp://"+own.addr, "connections", "100", "interval", interval.String(), "duration",
			"2500ms", "timeout", "10m")
		ours[0], ours[1] = append(ours[0], r.Service.US.P50), append(ours[1], r.Service.US.P90)
		us := blockingClient(t, target, conns, rounds, interval)
		slices.Sort(us)
		theirs[0], theirs[1] = append(theirs[0], us[len(us)/2]), append(theirs[1], us[len(us)*9/10])
	}
	for i, name := range []string{"p50", "p90"} {
		ratios := make([]float64, turns)
		for k := range ratios {
			ratios[k] = ours[i][k] / theirs[i][k]
		}
		slices.Sort(ratios)
		slices.Sort(ours[i])
		slices.Sort(theirs[i])
		ratio := ratios[turns/2]
		t.Logf("%s: %.1f µs, the other client %.1f µs (medians of %d turns); "+
			"ratio, turn by turn: median %.2f, quartiles %.2f and %.2f",
			name, ours[i][turns/2], theirs[i][turns/2], turns, ratio, ratios[turns/4], ratios[turns*3/4])
		if math.Abs(ratio-1) > 0.10 {
			t.Errorf("%s differs by %.0f %%", name, 100*(ratio-1))
		}
	}
}

// blockingClient sends rounds of beats, one at a time, each when it is due, and returns
// how long the answers took in µs.
func blockingClient(t *testing.T, target netip.AddrPort, conns, rounds int, interval time.Duration) (us []float64) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		var fds []int
		for range conns {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer unix.Close(fd)
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: target.Addr().As4(),
				Port: int(target.Port())}); err != nil {
				t.Error(err)
				return
			}
			fds = append(fds, fd)
		}
		frame, answer := make([]byte, 4), make([]byte, 4)
		start := time.Now()
		for k := range conns * rounds {
			due := time.Duration(k) * interval / time.Duration(conns)
			for wait := due - time.Since(start); wait > 0; wait = due - time.Since(start) {
				ts := unix.NsecToTimespec(int64(wait))
				_ = unix.Nanosleep(&ts, nil)
			}
			sent := time.Now()
			if _, err := unix.Write(fds[k%conns], frame); err != nil {
				t.Error(err)
				return
			}
			if n, err := unix.Read(fds[k%conns], answer); n != 4 || err != nil {
				t.Error(n, err)
				return
			}
			us = append(us, float64(time.Since(sent).Nanoseconds())/1e3)
		}
	}()
	<-done
	if t.Failed() {
		t.FailNow()
	}
	return us
}
