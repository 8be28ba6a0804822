package examples

import (
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"heartwheel/codec"
)

var (
	requireLanguages = flag.Bool("require-languages", false,
		"fail, and not skip, where an interpreter or library that a page of docs needs is missing")
	long = flag.Bool("long", false, "also run what takes longer")
)

// A program is one of those in docs/clients.md.
type program struct {
	heading  string // of its section
	file     string // what to call it
	interval string // 15 s, as it is written there
	inMS     string // a tenth of a second in its place
	commands [][]string
	needs    []string // a command that fails where something is missing
	hello    bool     // it begins with HELLO
}

var programs = []program{
	{heading: "Erlang", file: "beat.erl", interval: "15000", inMS: "100",
		commands: [][]string{{"escript", "beat.erl"}}, needs: []string{"sh", "-c", "command -v escript"}},
	{heading: "Java with Netty", file: "Beat.java", interval: "15000", inMS: "100",
		commands: [][]string{{"javac", "-J-XX:TieredStopAtLevel=1", "-proc:none", "-cp", netty, "Beat.java"},
			{"java", "-XX:TieredStopAtLevel=1", "-cp", netty + ":.", "Beat"}},
		needs: []string{"sh", "-c", "javac --version && ls /usr/share/java/netty-codec.jar"}},
	{heading: "Python with asyncio", file: "beat.py", interval: "15.0", inMS: "0.1",
		commands: [][]string{{"python3", "beat.py"}}, needs: []string{"python3", "--version"}},
	{heading: "Python with Twisted", file: "beat.py", interval: "15.0", inMS: "0.1",
		// Debian's packages are for Debian's Python, which need not be the first.
		commands: [][]string{{"sh", "-c",
			"python3 -c 'import twisted' 2>/dev/null && exec python3 beat.py || exec /usr/bin/python3 beat.py"}},
		needs: []string{"sh", "-c", "python3 -c 'import twisted' || /usr/bin/python3 -c 'import twisted'"}},
	{heading: "Node", file: "beat.mjs", interval: "15000", inMS: "100",
		commands: [][]string{{"node", "beat.mjs"}}, needs: []string{"node", "--version"}},
	{heading: "Go with the client package", file: "main.go", hello: true,
		commands: [][]string{{"go", "build", "-o", "beat", "main.go"}, {"./beat"}}},
	{heading: "Go without it", file: "main.go", interval: "15000", inMS: "100",
		commands: [][]string{{"go", "build", "-o", "beat", "main.go"}, {"./beat"}}},
	{heading: "Ruby", file: "beat.rb", interval: "15.0", inMS: "0.1",
		commands: [][]string{{"ruby", "beat.rb"}}, needs: []string{"ruby", "--version"}},
}

// netty is where Debian's libnetty-java puts it.
const netty = "/usr/share/java/*"

// notRun are the sections whose code nothing here can run.
var notRun = map[string]bool{"PHP with Swoole": true}

// clientsPage returns the code blocks of docs/clients.md by their headings.
func clientsPage(t testing.TB) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{}
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		heading, body, _ := strings.Cut(section, "\n")
		for _, m := range regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```$").FindAllStringSubmatch(body, -1) {
			if blocks[heading] != "" {
				t.Errorf("docs/clients.md has two blocks of code under %q", heading)
			}
			blocks[heading] = m[1]
		}
	}
	return blocks
}

// TestClientsPageIsRun: no code on the page is left out of the tests below.
func TestClientsPageIsRun(t *testing.T) {
	run := map[string]bool{}
	blocks := clientsPage(t)
	for _, p := range programs {
		run[p.heading] = true
		if blocks[p.heading] == "" {
			t.Errorf("docs/clients.md has no code under %q", p.heading)
		}
	}
	for heading := range blocks {
		if run[heading] == notRun[heading] {
			t.Errorf("the code under %q is run: %v", heading, run[heading])
		}
	}
}

// run starts the program of the page, with the port of addr in place of 9000, a
// short interval and the changes, pairs of old and new text.
func (p program) run(t *testing.T, addr string, changes ...string) *process {
	t.Helper()
	if len(p.needs) > 0 {
		if out, err := exec.Command(p.needs[0], p.needs[1:]...).CombinedOutput(); err != nil {
			if *requireLanguages {
				t.Fatalf("what %s needs is not installed: %q: %v\n%s", p.heading, p.needs, err, out)
			}
			t.Skipf("what %s needs is not installed: %q: %v", p.heading, p.needs, err)
		}
	}
	host, port, _ := strings.Cut(addr, ":")
	changes = append(changes, "127.0.0.1", host, "9000", port)
	if p.interval != "" {
		changes = append(changes, p.interval, p.inMS)
	}
	code := clientsPage(t)[p.heading]
	for i := 0; i < len(changes); i += 2 {
		if n := strings.Count(code, changes[i]); n != 1 {
			t.Fatalf("the code under %q has %q %d times, not once", p.heading, changes[i], n)
		}
		code = strings.Replace(code, changes[i], changes[i+1], 1)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, p.file), []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, args := range p.commands {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if args[0] == "go" { // in this module, as the program may import it
			cmd = exec.Command("go", "build", "-ldflags=-s -w",
				"-o", filepath.Join(dir, "beat"), filepath.Join(dir, p.file))
		}
		if i == len(p.commands)-1 {
			return startCmd(t, cmd)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	return nil
}

// TestClientsPage runs each program of the page against the real server, through a
// relay that counts its frames: its DATA comes back and its beats keep it connected,
// also while it receives; it answers PING, and prints what it was closed with.
func TestClientsPage(t *testing.T) {
	t.Parallel()
	const timeout = 3 * time.Second
	s := startServer(t, "127.0.0.1:0", "--beat", "100ms", "--timeout", timeout.String())
	for _, p := range programs {
		t.Run(p.heading, func(t *testing.T) {
			t.Parallel()
			lag := measureLag(t)
			fake := newFake(t)
			c := p.run(t, fake.Addr().String())
			r := fake.relay(s.addr)
			if f := r.next(p.hello); f.Op != codec.OpData || string(f.Payload) != "hello" {
				t.Fatalf("it begins with %s %q", f.Op, f.Payload)
			}
			c.await(&c.out, "hello", 1)
			beats := r.beats(timeout + 500*time.Millisecond)
			if err := r.upErr(); err != nil && lag.lag() < timeout/2 {
				t.Errorf("the server closed the connection after %d beats: %v", beats, err)
			}
			if beats < 10 && lag.lag() < time.Second {
				t.Errorf("%d beats, want about 35", beats)
			}
			stop := r.push()
			if beats := r.beats(2 * time.Second); beats < 5 && lag.lag() < 500*time.Millisecond {
				t.Errorf("%d beats in 2 s of receiving, want about 20", beats)
			}
			stop()
			r.send(codec.AppendPing(nil, []byte("abc")))
			if f := r.next(false); f.Op != codec.OpPong || string(f.Payload) != "abc" {
				t.Errorf("it answers PING with %s %q", f.Op, f.Payload)
			}
			r.send(codec.AppendClose(nil, codec.CodeKicked, "goodbye"))
			if p.hello {
				c.await(&c.err, "3503 kicked: goodbye", 1)
			} else {
				c.awaitAny("closed: 3503 goodbye")
			}
		})
	}
}

// A relay passes frames between a client and a server.
type relay struct {
	t    *testing.T
	down *peer    // the client
	up   net.Conn // the server

	mu  sync.Mutex // held while writing to down
	err error      // guarded by mu: why the server's stream ended
}

// relay accepts a client and connects it to the server at addr.
func (s *fakeServer) relay(addr string) *relay {
	s.t.Helper()
	down := s.acceptPlain()
	up, err := net.Dial("tcp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	r := &relay{t: s.t, down: down, up: up}
	passed := make(chan struct{})
	s.t.Cleanup(func() { _ = up.Close(); <-passed })
	go func() {
		defer close(passed)
		p := &peer{Conn: up, t: s.t}
		for {
			f, err := p.frame()
			if err != nil {
				r.mu.Lock()
				r.err = err
				r.mu.Unlock()
				return
			}
			r.send(codec.AppendFrame(nil, f.Op, f.Payload))
		}
	}()
	return r
}

// send writes a frame to the client. That it has closed is found when reading.
func (r *relay) send(frame []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = r.down.Write(frame)
}

func (r *relay) upErr() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// next passes on the client's frames up to the first that is no beat, nor HELLO
// where that is expected, and returns it.
func (r *relay) next(hello bool) codec.Frame {
	r.t.Helper()
	for {
		f, err := r.down.frame()
		if err != nil {
			r.t.Fatal(err)
		}
		_, _ = r.up.Write(codec.AppendFrame(nil, f.Op, f.Payload))
		if f.Op != codec.OpBeat && !(hello && f.Op == codec.OpHello) {
			return f
		}
	}
}

// beats passes on the client's frames for a time and returns how many there were,
// beats all of them.
func (r *relay) beats(d time.Duration) (n int) {
	r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		f, err := r.down.frameWithin(time.Until(end))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil || f.Op != codec.OpBeat {
			r.t.Fatalf("after %d beats it sends %s, %v", n, f.Op, err)
		}
		_, _ = r.up.Write(codec.AppendBeat(nil))
		n++
	}
	return n
}

// push sends DATA to the client until stop is called.
func (r *relay) push() (stop func()) {
	quit, pushed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(pushed)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				r.send(codec.AppendData(nil, []byte("news")))
			}
		}
	}()
	return func() { close(quit); <-pushed }
}

// TestClientsPageMistakes checks what the page says about mistakes.
func TestClientsPageMistakes(t *testing.T) {
	t.Parallel()
	byName := map[string]program{}
	for _, p := range programs {
		byName[p.heading] = p
	}
	t.Run("no op", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, ownAddress())
		byName["Erlang"].run(t, s.addr, `<<3, "hello">>`, `"hello"`)
		m := s.awaitMetric(`heartwheel_frames_total{direction="in",op="beat"}`, 3)
		if m[`heartwheel_frames_total{direction="in",op="ext"}`] != 1 ||
			m[`heartwheel_frames_total{direction="in",op="data"}`] != 0 {
			t.Errorf("a frame without an op is not taken for an extension: %v", m)
		}
	})
	if !*long { // each compiles Java and starts it
		return
	}
	t.Run("ALL_IDLE", func(t *testing.T) {
		t.Parallel()
		lag := measureLag(t)
		s := startServer(t, ownAddress())
		fake := newFake(t)
		p := byName["Java with Netty"]
		p.inMS = "500"
		p.run(t, fake.Addr().String(), "IdleStateHandler(0, 15000, 0,", "IdleStateHandler(0, 0, 15000,")
		r := fake.relay(s.addr)
		r.next(false)
		stop := r.push()
		defer stop()
		if beats := r.beats(2 * time.Second); beats > 0 && lag.lag() < 300*time.Millisecond {
			t.Errorf("%d beats; ALL_IDLE is said to restart with what is received", beats)
		}
	})
	for max, fits := range map[string]bool{"65540": true, "65536": false} {
		t.Run("maximum "+max, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, ownAddress())
			c := byName["Java with Netty"].run(t, s.addr, `"hello"`, `"x".repeat(65535)`, "(65540,", "("+max+",")
			line := c.awaitAny("xxx", "lost:")
			if strings.HasPrefix(line, "xxx") != fits {
				t.Errorf("got %.100q", line)
			}
		})
	}
}
