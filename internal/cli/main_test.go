package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"heartwheel/codec"
	"heartwheel/internal/testcert"
)

func TestMain(m *testing.M) {
	testscript.Main(patient{m}, map[string]func(){
		"heartwheel": func() { os.Exit(Run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) },
	})
}

// A patient runs more tests side by side than there are processors: they wait
// most of the time, for beats and drains.
type patient struct{ *testing.M }

func (p patient) Run() int {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	// Child processes inherit it if this process ignores SIGHUP, as under nohup.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	return p.M.Run()
}

// TestScript runs the scripts testdata/script/*.txtar with the real command. The
// commands below are in addition to testscript's.
func TestScript(t *testing.T) {
	ca := testcert.New(t)
	certs := []string{"CA=" + ca.File}
	for _, name := range []string{"server", "client"} {
		cert, key := ca.Issue(t, name, "127.0.0.1", name+".example")
		certs = append(certs, strings.ToUpper(name)+"_CERT="+cert, strings.ToUpper(name)+"_KEY="+key)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition: func(cond string) (bool, error) {
			if cond != "ipv6" {
				return false, fmt.Errorf("unknown condition %s", cond)
			}
			ln, err := net.Listen("tcp", "[::1]:0")
			if err == nil {
				_ = ln.Close()
			}
			return err == nil, nil
		},
		Setup: func(env *testscript.Env) error {
			env.Values[procs{}] = map[string]*proc{}
			env.Values[conns{}] = map[string]net.Conn{}
			env.Vars = append(env.Vars, certs...)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      cmdExits,
			"start":      cmdStart,
			"log":        cmdLog,
			"signal":     cmdSignal,
			"ends":       cmdEnds,
			"dial":       cmdDial,
			"echoes":     cmdEchoes,
			"hangup":     cmdHangup,
			"get":        cmdGet,
			"fetch":      cmdFetch,
			"type":       cmdType,
			"testserver": cmdTestserver,
		},
	})
}

// limit is how long a test waits for an event before it fails.
const limit = time.Minute

type (
	procs struct{} // keys of testscript.Env.Values
	conns struct{}
)

// A proc is a started heartwheel. Its output goes to a file.
type proc struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	log   string
	done  chan struct{} // closed when it has ended
}

func usage(ts *testscript.TestScript, neg, ok bool, form string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", form)
	}
}

// exits CODE PROGRAM ARG... runs a program, which must exit with that code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "exits CODE PROGRAM ARG...")
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// start NAME ARG... starts heartwheel in the background.
func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 1, "start NAME ARG...")
	p := &proc{log: ts.MkAbs(args[0] + ".log"), done: make(chan struct{})}
	f, err := os.Create(p.log)
	ts.Check(err)
	defer f.Close()
	path, err := exec.LookPath("heartwheel")
	ts.Check(err)
	p.cmd = exec.Command(path, args[1:]...)
	p.cmd.Dir = ts.Getenv("WORK")
	p.cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.stdin, err = p.cmd.StdinPipe()
	ts.Check(err)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // for its successors too
	ts.Check(p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // the command ends reads the state
		close(p.done)
	}()
	ts.Value(procs{}).(map[string]*proc)[args[0]] = p
	ts.Defer(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	})
}

func named(ts *testscript.TestScript, name string) *proc {
	p := ts.Value(procs{}).(map[string]*proc)[name]
	if p == nil {
		ts.Fatalf("%s was not started", name)
	}
	return p
}

func (p *proc) read(ts *testscript.TestScript) string {
	text, err := os.ReadFile(p.log)
	ts.Check(err)
	return string(text)
}

// log NAME REGEXP [VAR...] waits until the log matches, and sets variables to the
// groups. With ! the log must not match now.
func cmdLog(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, false, len(args) >= 2, "[!] log NAME REGEXP [VAR...]")
	p, re := named(ts, args[0]), regexp.MustCompile("(?m)"+args[1])
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		over := time.Now().After(end)
		select {
		case <-p.done: // unless a successor still writes
			over = over || syscall.Kill(-p.cmd.Process.Pid, 0) != nil
		default:
		}
		text := p.read(ts)
		m := re.FindStringSubmatch(text)
		switch {
		case neg && m != nil:
			ts.Fatalf("the log of %s matches %q:\n%s", args[0], args[1], text)
		case neg:
			return
		case m != nil:
			for i, name := range args[2:] {
				ts.Setenv(name, m[i+1])
			}
			return
		case over:
			ts.Fatalf("the log of %s does not match %q:\n%s", args[0], args[1], text)
		}
	}
}

// signal NAME TERM|INT|HUP|USR2|QUIT|KILL [PID] sends a signal to it, or to its successor with
// that process ID.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	sigs := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP,
		"USR2": syscall.SIGUSR2, "QUIT": syscall.SIGQUIT, "KILL": syscall.SIGKILL}
	usage(ts, neg, len(args) >= 2 && len(args) <= 3 && sigs[args[1]] != 0,
		"signal NAME TERM|INT|HUP|USR2|QUIT|KILL [PID]")
	p, pid := named(ts, args[0]), 0
	if len(args) == 2 {
		ts.Check(p.cmd.Process.Signal(sigs[args[1]]))
		return
	}
	_, err := fmt.Sscan(args[2], &pid)
	ts.Check(err)
	if !strings.Contains(p.read(ts), fmt.Sprintf("successor=%d ", pid)) {
		ts.Fatalf("%d is no successor of %s", pid, args[0])
	}
	ts.Check(syscall.Kill(pid, sigs[args[1]]))
}

// ends NAME CODE waits for it to exit, which must be with that code.
func cmdEnds(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "ends NAME CODE")
	p := named(ts, args[0])
	select {
	case <-p.done:
	case <-time.After(limit):
		ts.Fatalf("%s has not ended:\n%s", args[0], p.read(ts))
	}
	if code := p.cmd.ProcessState.ExitCode(); strconv.Itoa(code) != args[1] {
		ts.Fatalf("%s ended with %s, want exit code %s:\n%s", args[0], p.cmd.ProcessState, args[1], p.read(ts))
	}
}

// dial NAME ADDR connects and keeps the connection open. ADDR is HOST:PORT, or the path
// of a socket.
func cmdDial(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "dial NAME ADDR")
	network := "tcp"
	if strings.HasPrefix(args[1], "/") {
		network = "unix"
	}
	c, err := net.DialTimeout(network, args[1], limit)
	ts.Check(err)
	ts.Value(conns{}).(map[string]net.Conn)[args[0]] = c
	ts.Defer(func() { c.Close() })
}

// echoes NAME sends an empty frame and waits for it to come back.
func cmdEchoes(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "echoes NAME")
	c := dialed(ts, args[0])
	ts.Check(c.SetDeadline(time.Now().Add(limit)))
	_, err := c.Write(codec.AppendBeat(nil))
	ts.Check(err)
	for b := make([]byte, 4); ; { // a draining server may send GOAWAY first
		_, err := io.ReadFull(c, b)
		ts.Check(err)
		size, err := codec.FrameSize(b, codec.DefaultMaxFrame)
		ts.Check(err)
		if size == codec.HeaderSize {
			return
		}
		_, err = io.CopyN(io.Discard, c, int64(size-codec.HeaderSize))
		ts.Check(err)
	}
}

// hangup NAME closes a connection.
func cmdHangup(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "hangup NAME")
	ts.Check(dialed(ts, args[0]).Close())
}

func dialed(ts *testscript.TestScript, name string) net.Conn {
	c := ts.Value(conns{}).(map[string]net.Conn)[name]
	if c == nil {
		ts.Fatalf("%s was not dialed", name)
	}
	return c
}

// fetch URL FILE writes what the URL answers to a file.
func cmdFetch(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "fetch URL FILE")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: limit}
	resp, err := client.Get(args[0])
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), body, 0o666))
}

// get URL STATUS waits until the URL answers with that status.
func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "get URL STATUS")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: limit}
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		got := ""
		if resp, err := client.Get(args[0]); err != nil {
			got = err.Error()
		} else {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if got = strconv.Itoa(resp.StatusCode); got == args[1] {
				return
			}
			got += fmt.Sprintf(" %s", body)
		}
		if time.Now().After(end) {
			ts.Fatalf("%s: %s, want %s", args[0], got, args[1])
		}
	}
}
