package cli

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"heartwheel/server"
)

func TestParseInherit(t *testing.T) {
	for text, wrong := range map[string]string{
		"ready":        "",
		"ready,stderr": "",
		"tcp://127.0.0.1:0,tcp://127.0.0.1:0,ops://:9090,ready":        "",
		"ready,stderr,worker://3/56/127.0.0.1:9090,count://7,tcp://:1": "",
		"stderr":                       "does not name ready",
		"tcp://:1":                     "does not name ready",
		"ready,ready":                  "names ready twice",
		"ready,stderr,stderr":          "names stderr twice",
		"ready,":                       `names ""`,
		"ready, stderr":                `names " stderr"`,
		"ready,tcp://":                 `names "tcp://"`,
		"ready,ws://:1":                `names "ws://:1"`,
		"ready,unix":                   `names "unix"`,
		strings.Repeat("ready,", 1000): "names more than 1000",
	} {
		names, err := parseInherit(text)
		switch {
		case wrong == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case wrong == "" && strings.Join(names, ",") != text:
			t.Errorf("%q has the names %q", text, names)
		case wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)):
			t.Errorf("%.40q: %v, want %s", text, err, wrong)
		}
	}
}

// FuzzParseInherit: what is taken is what was written, and has one pipe for
// readiness.
func FuzzParseInherit(f *testing.F) {
	for _, text := range []string{"", "ready", "ready,stderr,tcp://[::1]:9000,ops://127.0.0.1:0", "ready,ready", "x,ready", ",", "ready,worker://0/2/off,count://1", "ops://", "tcp://"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		names, err := parseInherit(text)
		if err != nil {
			return
		}
		if strings.Join(names, ",") != text || len(names) > maxInherited {
			t.Errorf("%q has the names %q", text, names)
		}
		ready := 0
		for _, name := range names {
			switch {
			case name == readyName:
				ready++
			case name == stderrName:
			case len(name) <= len(tcpScheme) && !strings.HasPrefix(name, opsScheme), !strings.Contains(name, "://"):
				t.Errorf("%q has the name %q", text, name)
			}
		}
		if ready != 1 {
			t.Errorf("%q has %d pipes for readiness", text, ready)
		}
	})
}

// The variable is no setting, and no setting has its name.
func TestInheritIsNoSetting(t *testing.T) {
	for _, s := range settings {
		if s.env() == inheritEnv {
			t.Errorf("%s is %s too", s.key, inheritEnv)
		}
	}
	if _, err := resolve(envLayer([]string{inheritEnv + "=ready"})); err != nil {
		t.Error(err)
	}
}

func TestLookup(t *testing.T) {
	environ := []string{"A=1", "AB=2", "A=3", "C"}
	for name, want := range map[string]string{"A": "3", "AB": "2", "B": "", "C": ""} {
		if got := lookup(environ, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// A given is a heartwheel that this test starts as a supervisor would: it gives
// it sockets by descriptor and waits on a pipe.
type given struct {
	cmd   *exec.Cmd
	early bytes.Buffer // its standard error before it was ready; valid when it has ended
}

func startGiven(t *testing.T, environ []string, names []string, files []*os.File, args ...string) *given {
	t.Helper()
	path, err := exec.LookPath("heartwheel")
	if err != nil {
		t.Fatal(err)
	}
	g := &given{cmd: exec.Command(path, append([]string{"serve"}, args...)...)}
	g.cmd.Env = append(environ, inheritEnv+"="+strings.Join(names, ","))
	g.cmd.ExtraFiles, g.cmd.Stderr = files, &g.early
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if g.cmd.ProcessState == nil {
			_ = g.cmd.Process.Kill()
			_ = g.cmd.Wait()
		}
	})
	return g
}

func TestServeWithGivenSockets(t *testing.T) {
	tcp, ops := listenHere(t), listenHere(t)
	pipes := [2][2]*os.File{}
	for i := range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		pipes[i] = [2]*os.File{r, w}
	}
	var files []*os.File
	for _, ln := range []*net.TCPListener{tcp, ops} {
		f, err := duplicate(ln)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	files = append(files, pipes[0][1], pipes[1][1])
	c, err := net.Dial("tcp", tcp.Addr().String()) // waits in the backlog
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g := startGiven(t, nil, []string{"tcp://127.0.0.1:0", "ops://127.0.0.1:0", "ready", "stderr"}, files,
		"--listen", "tcp://127.0.0.1:0", "--ops", "127.0.0.1:0")
	for _, f := range files {
		f.Close()
	}
	text, err := io.ReadAll(pipes[0][0])
	if err != nil || string(text) != readyLine {
		_ = g.cmd.Wait()
		t.Fatalf("got %q %v; it wrote\n%s", text, err, g.early.String())
	}
	tcp.Close() // it has its own
	ops.Close()
	beat(t, c)
	c.Close()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	log, err := io.ReadAll(pipes[1][0])
	if err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Wait(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"msg=listening pid=", "addr=" + tcp.Addr().String(), `msg="ops listening" pid=`, "addr=" + ops.Addr().String()} {
		if !strings.Contains(g.early.String(), want) {
			t.Errorf("%q is not in what it wrote before it was ready:\n%s", want, g.early.String())
		}
	}
	if !strings.Contains(string(log), "msg=drained") || strings.Contains(g.early.String(), "drain") {
		t.Errorf("before it was ready it wrote\n%s\nand then\n%s", g.early.String(), log)
	}
}

func listenHere(t *testing.T) *net.TCPListener {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // which Go has on, and the server refuses
	ln, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

func TestWrongInheritance(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		names string
		want  string
	}{
		{"ready,stdin", `names "stdin", which this version does not know`},
		{"ready,tcp://127.0.0.1:0", "descriptor 4, tcp://127.0.0.1:0: "},
		{"ready,stderr,stderr", "names stderr twice"},
	} {
		g := startGiven(t, nil, strings.Split(c.names, ","), []*os.File{null, null}, "--listen", "tcp://127.0.0.1:0", "--ops", "off")
		err := g.cmd.Wait()
		if text := g.early.String(); err == nil || g.cmd.ProcessState.ExitCode() != exitFailed ||
			!strings.Contains(text, c.want) || !strings.HasSuffix(text, "unset it\n") || strings.Count(text, "\n") != 1 {
			t.Errorf("%s: %v, %s", c.names, err, text)
		}
	}
}

func TestTakeOps(t *testing.T) {
	wanted, other, tcp := listenHere(t), listenHere(t), listenHere(t)
	in := &inheritance{sockets: []server.Socket{
		{Address: "ops://a:1", Listener: other}, {Address: "tcp://b:2", Listener: tcp}, {Address: "ops://b:2", Listener: wanted},
	}}
	if got := in.takeOps("b:2"); got != wanted {
		t.Errorf("took %v", got)
	}
	open := func(ln *net.TCPListener) bool {
		f, err := duplicate(ln)
		if err == nil {
			f.Close()
		}
		return err == nil
	}
	if !open(wanted) || open(other) || !open(tcp) {
		t.Errorf("wanted is open: %v, other: %v, tcp: %v", open(wanted), open(other), open(tcp))
	}
	if rest := in.take(tcpScheme); !slices.Equal(rest, []server.Socket{{Address: "tcp://b:2", Listener: tcp}}) || len(in.sockets) != 0 {
		t.Errorf("left are %v, then %v", rest, in.sockets)
	}
}
