package examples

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"heartwheel/codec"
)

var (
	requireLanguages = flag.Bool("require-languages", false,
		"fail, and not skip, where an interpreter or library that docs/clients.md needs is missing")
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
				t.Fatalf("%q: %v\n%s", p.needs, err, out)
			}
			t.Skipf("%q: %v", p.needs, err)
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
			cmd = exec.Command("go", "build", "-o", filepath.Join(dir, "beat"), filepath.Join(dir, p.file))
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

// inEachProgram runs a test for each program of the page.
func inEachProgram(t *testing.T, test func(t *testing.T, p program)) {
	t.Parallel()
	for _, p := range programs {
		t.Run(p.heading, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

// TestClientsPage runs each program of the page against the real server: its
// DATA comes back, and its beats keep it connected.
func TestClientsPage(t *testing.T) {
	inEachProgram(t, func(t *testing.T, p program) {
		lag := measureLag(t)
		const timeout = 4 * time.Second
		s := startServer(t, ownAddress(), "--beat", "100ms", "--timeout", timeout.String())
		c := p.run(t, s.addr)
		c.await(&c.out, "hello", 1)
		select { // beats alone keep it connected
		case <-time.After(timeout + time.Second):
		case <-c.exited:
			if lag.lag() > timeout/2 {
				t.Skipf("the machine paused for %s, which proves nothing", lag.lag())
			}
			t.Fatalf("it ended; the machine was late by %s at most", lag.lag())
		}
		m := s.metrics()
		if beats := m[`heartwheel_frames_total{direction="in",op="beat"}`]; beats < 10 {
			t.Errorf("%v beats in %s, want about 50", beats, timeout+time.Second)
		}
		for name, want := range map[string]float64{
			`heartwheel_accepted_total`:                         1,
			`heartwheel_connections`:                            1,
			`heartwheel_frames_total{direction="in",op="data"}`: 1,
			`heartwheel_frames_total{direction="in",op="ext"}`:  0,
		} {
			if m[name] != want {
				t.Errorf("%s is %v, not %v", name, m[name], want)
			}
		}
	})
}

// TestClientsPageRules: each program beats while it receives, answers PING, and
// says what it was closed with.
func TestClientsPageRules(t *testing.T) {
	inEachProgram(t, func(t *testing.T, p program) {
		fake := newFake(t)
		c := p.run(t, fake.Addr().String())
		peer := fake.acceptDATA(p.hello)
		if beats := peer.beatsWhilePushed(); beats < 3 {
			t.Errorf("%d beats in 2 s of receiving, want about 20", beats)
		}
		peer.write(codec.AppendPing(nil, []byte("abc")))
		if f := peer.want(codec.OpPong); string(f.Payload) != "abc" {
			t.Errorf("PONG has %q", f.Payload)
		}
		peer.write(codec.AppendClose(nil, codec.CodeKicked, "goodbye"))
		if p.hello {
			c.await(&c.err, "3503 kicked: goodbye", 1)
		} else {
			c.awaitAny("closed: 3503 goodbye")
		}
	})
}

// acceptDATA takes a connection of a program of the page and its DATA.
func (s *fakeServer) acceptDATA(hello bool) *peer {
	s.t.Helper()
	var p *peer
	if hello {
		p = s.accept()
		p.welcome("client", 100)
	} else {
		p = s.acceptPlain()
	}
	if f := p.want(codec.OpData); string(f.Payload) != "hello" {
		s.t.Fatalf("got DATA %q", f.Payload)
	}
	return p
}

// beatsWhilePushed sends DATA for 2 s and returns how many beats came meanwhile.
func (p *peer) beatsWhilePushed() (beats int) {
	p.t.Helper()
	quit := make(chan struct{})
	pushed := make(chan struct{})
	go func() {
		defer close(pushed)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				if _, err := p.Write(codec.AppendData(nil, []byte("news"))); err != nil {
					return // the read below says why
				}
			}
		}
	}()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		f, err := p.frameWithin(100 * time.Millisecond)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil || f.Op != codec.OpBeat {
			p.t.Errorf("got %s, %v", f.Op, err)
			break
		}
		beats++
	}
	close(quit)
	<-pushed
	return beats
}

// What the page says of mistakes.
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
		fake := newFake(t)
		p := byName["Java with Netty"]
		p.inMS = "500"
		p.run(t, fake.Addr().String(), "IdleStateHandler(0, 15000, 0,", "IdleStateHandler(0, 0, 15000,")
		if beats := fake.acceptDATA(false).beatsWhilePushed(); beats > 0 && lag.lag() < 300*time.Millisecond {
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
