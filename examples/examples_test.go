package examples

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"heartwheel/codec"
)

// beat and timeout of the servers below. The timeout allows for a client that does
// not run for more than a second.
const (
	beat    = 200 * time.Millisecond
	timeout = 1500 * time.Millisecond
)

// wantAlive checks that no peer was declared dead. It skips the test if the machine
// paused for so much of the timeout that this proves nothing.
func wantAlive(t *testing.T, m map[string]float64, lag time.Duration) {
	t.Helper()
	if n := m[`heartwheel_closed_total{reason="idle_timeout"}`]; n != 0 {
		if lag > timeout-2*beat {
			t.Skipf("the machine paused for %s, which proves nothing", lag)
		}
		t.Errorf("%v idle timeouts; the machine was late by %s at most", n, lag)
	}
}

func TestStaysConnected(t *testing.T) {
	inEach(t, func(t *testing.T, l language) {
		lag := measureLag(t)
		s := startServer(t, "127.0.0.1:0", "--beat", beat.String(), "--timeout", timeout.String())
		c := startClient(t, l, s.addr, "")
		c.await(&c.err, "connected: the client beats every 200 ms", 1)
		c.write("hello")
		c.await(&c.out, "hello", 1)
		// 5 s of nothing but beats, which is three timeouts and more.
		m := s.awaitMetric(`heartwheel_frames_total{direction="in",op="beat"}`, 25)
		wantAlive(t, m, lag.lag())
		c.write("still there?")
		c.await(&c.out, "still there?", 1)
		m = s.metrics()
		for name, want := range map[string]float64{
			`heartwheel_accepted_total`:                           1,
			`heartwheel_frames_total{direction="in",op="hello"}`:  1,
			`heartwheel_frames_total{direction="in",op="data"}`:   2,
			`heartwheel_frames_total{direction="out",op="data"}`:  2,
			`heartwheel_closed_total{reason="protocol_error"}`:    0,
			`heartwheel_frames_total{direction="out",op="error"}`: 0,
		} {
			if m[name] != want {
				t.Errorf("%s is %v, not %v", name, m[name], want)
			}
		}
	})
}

func TestAnswersServerBeats(t *testing.T) {
	inEach(t, func(t *testing.T, l language) {
		lag := measureLag(t)
		s := startServer(t, "127.0.0.1:0", "--beat", beat.String(), "--timeout", timeout.String())
		c := startClient(t, l, s.addr, `{"beats": "server"}`)
		c.await(&c.err, "connected: the server beats", 1)
		m := s.awaitMetric(`heartwheel_frames_total{direction="in",op="beat"}`, 25)
		wantAlive(t, m, lag.lag())
		in := m[`heartwheel_frames_total{direction="in",op="beat"}`]
		out := m[`heartwheel_frames_total{direction="out",op="beat"}`]
		if in > out {
			t.Errorf("%v beats went out and %v came in: a client that answers does not beat", out, in)
		}
	})
}

// Any frame replaces a beat: a client that sends does not beat.
func TestTalkReplacesBeats(t *testing.T) {
	inEach(t, func(t *testing.T, l language) {
		lag := measureLag(t)
		fake := newFake(t)
		c := startClient(t, l, fake.Addr().String(), "")
		p := fake.accept()
		p.welcome("client", 2000)
		c.await(&c.err, "connected", 1)
		for range 30 { // one in a tenth of a second: longer than a beat
			c.write("talk")
			f, err := p.frame()
			if err != nil {
				t.Fatal(err)
			}
			if f.Op == codec.OpBeat && lag.lag() > 500*time.Millisecond {
				t.Skipf("the machine paused for %s, which proves nothing", lag.lag())
			}
			if f.Op != codec.OpData {
				t.Fatalf("got %s %q: it sends DATA, so it needs no beat", f.Op, f.Payload)
			}
			time.Sleep(100 * time.Millisecond)
		}
		p.want(codec.OpBeat)
	})
}

// The longest delays are the server's spread, then 0.5 s, 1 s, 2 s.
func TestBacksOff(t *testing.T) {
	inEach(t, func(t *testing.T, l language) {
		fake := newFake(t)
		c := startClient(t, l, fake.Addr().String(), "")
		p := fake.accept()
		p.welcome("client", 1000)
		c.await(&c.err, "connected", 1)
		_ = fake.Close()
		_ = p.Close()
		for i, most := range []float64{0.001, 0.5, 1, 2} {
			line := c.await(&c.err, "next try in ", i+1)
			_, tail, _ := strings.Cut(line, "next try in ")
			delay, err := strconv.ParseFloat(strings.TrimSuffix(tail, " s"), 64)
			if err != nil || delay > most+0.05 { // it is written to the tenth
				t.Errorf("try %d after %q, at most %v s were allowed (%v)", i+1, tail, most, err)
			}
		}
	})
}

func TestReconnects(t *testing.T) {
	inEach(t, func(t *testing.T, l language) {
		s := startServer(t, ownAddress(), "--spread", "100ms")
		c := startClient(t, l, s.addr, "")
		c.await(&c.err, "connected", 1)
		s.signal(syscall.SIGKILL)
		s.wait()
		c.await(&c.err, "lost: ", 1)
		c.write("said while no server was there")
		s = startServer(t, s.addr)
		c.await(&c.err, "connected", 2)
		c.await(&c.out, "said while no server was there", 1)
		s.awaitMetric(`heartwheel_frames_total{direction="in",op="hello"}`, 1)
	})
}

// A drained server's clients come back to the next one.
func TestReconnectsAfterDrain(t *testing.T) {
	inEach(t, func(t *testing.T, l language) {
		s := startServer(t, ownAddress(), "--spread", "100ms", "--drain", "2s")
		c := startClient(t, l, s.addr, "")
		c.await(&c.err, "connected", 1)
		s.signal(syscall.SIGTERM)
		if code := s.wait(); code != 0 {
			t.Errorf("the server ended with %d", code)
		}
		c.await(&c.err, "lost: server is going away", 1)
		startServer(t, s.addr)
		c.await(&c.err, "connected", 2)
	})
}

func TestStopsForGood(t *testing.T) {
	for _, c := range []struct {
		name  string
		last  []byte // what the server says instead of WELCOME
		wants string // in the client's last words
	}{
		{"bad token", codec.AppendClose(nil, codec.CodeBadToken, "bad token"), "3500 bad token"},
		{"kicked", codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeKicked, Reason: "kicked"}), "3503 kicked"},
		{"application", codec.AppendClose(nil, 4999, "go home"), "4999 go home"},
		{"too large", []byte{0, 1, 0, 1}, "3511 "},
		{"reserved op", []byte{0, 0, 0, 1, 0x0F}, "3501 "},
		{"not heartwheel", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), "3511 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			inEach(t, func(t *testing.T, l language) {
				fake := newFake(t)
				client := startClient(t, l, fake.Addr().String(), "")
				fake.accept().write(c.last)
				if code := client.wait(); code != 1 {
					t.Errorf("it ended with %d, not 1", code)
				}
				client.await(&client.err, "stopped for good: "+c.wants, 1)
			})
		})
	}
}

// What the real server does not do here: PING, ERROR, CONFIG, unknown extensions,
// GOAWAY to another address.
func TestObeys(t *testing.T) {
	inEach(t, func(t *testing.T, l language) {
		home := newFake(t)
		host, _, _ := net.SplitHostPort(home.Addr().String())
		other := newFakeOn(t, net.JoinHostPort(host, "0"))
		c := startClient(t, l, home.Addr().String(), "")
		p := home.accept()
		p.welcome("client", 60_000)
		c.await(&c.err, "connected: the client beats every 60000 ms", 1)
		p.write(codec.AppendPing(nil, []byte("abc")))
		if f := p.want(codec.OpPong); string(f.Payload) != "abc" {
			t.Errorf("got PONG %q", f.Payload)
		}
		p.write([]byte{0, 0, 0, 3, 0x40, 1, 2}) // an extension
		p.write(codec.AppendError(nil, codec.CodeNoGateway, "no gateway"))
		c.await(&c.err, "no gateway", 1)

		c.write(strings.Repeat("x", 5000)) // WELCOME said 1000 at most
		if f := p.want(codec.OpData); len(f.Payload) != 999 {
			t.Errorf("got DATA of %d bytes", len(f.Payload))
		}
		p.write(codec.AppendConfig(nil, codec.Config{BeatMS: 100, TimeoutMS: 250}))
		for range 3 {
			p.want(codec.OpBeat)
			p.write([]byte{0, 0, 0, 0})
		}

		const after = 300 * time.Millisecond
		told := time.Now()
		p.write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining, AfterMS: after.Milliseconds(),
			Addr: other.Addr().String()}))
		p = other.accept()
		if early := after - time.Since(told); early > 0 {
			t.Errorf("it came %s too early", early)
		}
		p.welcome("client", 60_000)
		c.await(&c.err, "connected: ", 3)
		p.write(codec.AppendClose(nil, codec.CodeInternalError, ""))
		home.accept()
	})
}

// GOAWAY to another host is not followed, nor to one whose name begins alike.
func TestStaysAtHome(t *testing.T) {
	inEach(t, func(t *testing.T, l language) {
		home := newFake(t)
		c := startClient(t, l, home.Addr().String(), `{"token": "secret"}`)
		for i, addr := range []string{"127.8.8.8:9", home.Addr().(*net.TCPAddr).IP.String() + ".example:9", "nowhere"} {
			p := home.accept()
			p.welcome("client", 60_000)
			c.await(&c.err, "connected: ", i+1)
			p.write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining, Addr: addr}))
		}
		home.accept()
		c.await(&c.err, "connecting to "+home.Addr().String(), 4)
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, line := range c.err {
			if strings.HasPrefix(line, "connecting to ") && !strings.HasSuffix(line, home.Addr().String()) {
				t.Errorf("it was %s", line)
			}
		}
	})
}

// needLong skips a test that waits for the 10 s after which a server is dead.
func needLong(t *testing.T) {
	if !*long {
		t.Skip("it waits 10 s and more; run it with -long")
	}
}

func TestServerFallsSilent(t *testing.T) {
	needLong(t)
	inEach(t, func(t *testing.T, l language) {
		lag := measureLag(t)
		fake := newFake(t)
		c := startClient(t, l, fake.Addr().String(), "")
		p := fake.accept()
		p.welcome("client", 100)
		var answered time.Time // just before the last answer
		for range 3 {
			p.want(codec.OpBeat)
			answered = time.Now()
			p.write([]byte{0, 0, 0, 0})
		}
		var err error
		for err == nil {
			_, err = p.frame()
		}
		took := time.Since(answered)
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("it ended with %v, not by a reset", err)
		}
		// The 10 s run from the next beat, which is sent when the last answer
		// has come and at most 110 ms after the beat before.
		if took < 10*time.Second {
			t.Errorf("declared dead after %s, not 10 s", took)
		}
		if high := 11*time.Second + 10*lag.lag(); took > high {
			t.Errorf("declared dead after %s, not within %s; the machine was late by %s", took, high, lag.lag())
		}
		c.await(&c.err, "lost: the server is dead", 1)
		fake.accept()
	})
}

// A client that was stopped for longer than it waits for an answer reads the answer
// that has arrived before it judges the server.
func TestOwnStallIsNoDeath(t *testing.T) {
	needLong(t)
	inEach(t, func(t *testing.T, l language) {
		fake := newFake(t)
		c := startClient(t, l, fake.Addr().String(), "")
		p := fake.accept()
		p.welcome("client", 100)
		p.want(codec.OpBeat)
		c.signal(syscall.SIGSTOP)
		p.write([]byte{0, 0, 0, 0})
		time.Sleep(10*time.Second + 500*time.Millisecond) // what it would wait, and more
		c.signal(syscall.SIGCONT)
		for range 5 {
			p.want(codec.OpBeat)
			p.write([]byte{0, 0, 0, 0})
		}
	})
}

func TestEmbedded(t *testing.T) {
	t.Parallel()
	binary, err := buildEmbedded()
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, binary, "-listen", "tcp://127.0.0.1:0", "-ops", "127.0.0.1:0")
	_, addrs, _ := strings.Cut(s.await(&s.err, "listening on ", 1), "listening on ")
	addr, ops, _ := strings.Cut(addrs, ", ops on ")
	if _, err := get("http://" + ops + "/healthz"); err != nil {
		t.Error(err)
	}
	join := func(name string) *peer {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		p := &peer{Conn: conn, t: t}
		p.write(codec.AppendHello(nil, codec.Hello{Device: name}))
		p.want(codec.OpWelcome)
		return p
	}
	hears := func(p *peer, text string) {
		t.Helper()
		if f := p.want(codec.OpData); string(f.Payload) != text {
			t.Fatalf("heard %q, not %q", f.Payload, text)
		}
	}
	ann := join("ann")
	hears(ann, "ann is here")
	bob := join("bob")
	hears(bob, "bob is here")
	hears(ann, "bob is here")
	bob.write(codec.AppendData(nil, []byte("hello")))
	hears(bob, "bob: hello")
	hears(ann, "bob: hello")
	_ = bob.Close()
	hears(ann, "bob has left: peer_closed")

	s.signal(syscall.SIGTERM)
	// GOAWAY, or CLOSE where the event loop did not get to run in time.
	if f, err := ann.frame(); err != nil || f.Op != codec.OpGoaway && f.Op != codec.OpClose {
		t.Errorf("got %s %q %v at the drain", f.Op, f.Payload, err)
	}
	_ = ann.Close()
	if code := s.wait(); code != 0 {
		t.Errorf("it ended with %d, not 0", code)
	}
}
