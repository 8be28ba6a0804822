package engine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"heartwheel/internal/timerslack"
)

// WorkerCommand is the hidden subcommand that calls Worker.
const WorkerCommand = "loadtest-worker"

// Worker is one process of a generator: it reads a Job and then orders as JSON from
// in, and writes messages to out, until the job is done or in ends. The caller has to
// ignore signals from the terminal: the orders say when to stop.
func Worker(in io.Reader, out io.Writer) error {
	dec := json.NewDecoder(bufio.NewReader(in))
	var j Job
	if err := dec.Decode(&j); err != nil {
		return fmt.Errorf("loadtest: no job on standard input: %w; heartwheel loadtest starts this command itself", err)
	}
	messages := make(chan Message, messagesKept)
	orders, done, err := startLoops(&j, messages)
	if err != nil {
		return err
	}
	go func() { // ends with in, which the run closes
		for {
			var o Order
			if err := dec.Decode(&o); err != nil {
				o = Order{Stop: true}
			}
			for _, in := range orders {
				select {
				case in <- o:
				case <-done:
				}
			}
			if o.Stop {
				return
			}
		}
	}()
	go func() { <-done; close(messages) }()
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	var failed error
	for m := range messages { // even after an error: the loops must end
		if failed == nil {
			if failed = enc.Encode(m); failed == nil {
				failed = w.Flush()
			}
			if failed != nil {
				for _, in := range orders {
					in <- Order{Stop: true}
				}
			}
		}
	}
	return failed
}

// A workerProcess is one process of the generator.
type workerProcess struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	enc    *json.Encoder
	stderr *LogTail
	mu     sync.Mutex // guards enc
	done   chan struct{}
	err    error // valid after done
}

// startProcesses starts a worker for every process of the load.
func startProcesses(j *Job, command func() *exec.Cmd) (*Generator, error) {
	g := &Generator{loops: j.Of, messages: make(chan Message, messagesKept)}
	var workers []*workerProcess
	g.kill = func() {
		for _, w := range workers {
			_ = w.cmd.Process.Kill()
		}
	}
	g.wait = func() {
		for _, w := range workers {
			<-w.done
		}
	}
	for n := range j.Load.Processes {
		share := *j
		share.First = n * j.Load.Loops
		w, err := startWorker(command(), &share, g.messages, n)
		if err != nil {
			g.kill()
			g.wait()
			return nil, fmt.Errorf("worker process %d: %w", n, err)
		}
		workers = append(workers, w)
	}
	g.send = func(o Order) {
		for _, w := range workers {
			w.mu.Lock()
			_ = w.enc.Encode(o) // a worker that is gone is reported by read
			w.mu.Unlock()
		}
	}
	return g, nil
}

func startWorker(cmd *exec.Cmd, j *Job, messages chan<- Message, n int) (*workerProcess, error) {
	w := &workerProcess{cmd: cmd, stderr: &LogTail{}, done: make(chan struct{})}
	cmd.Stderr = w.stderr
	// A process group of its own: signals from the terminal are for the run.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if w.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := timerslack.Start(cmd, timerslack.Busy); err != nil { // the loops set their own
		return nil, err
	}
	w.enc = json.NewEncoder(w.stdin)
	go w.read(stdout, j.First, j.Load.Loops, messages, n)
	if err := w.enc.Encode(j); err != nil {
		_ = cmd.Process.Kill()
		<-w.done
		return nil, err
	}
	return w, nil
}

// read passes on the worker's messages until it ends. Loops without a last message
// by then are lost.
func (w *workerProcess) read(stdout io.Reader, first, loops int, messages chan<- Message, n int) {
	defer close(w.done)
	ended := map[int]bool{}
	dec := json.NewDecoder(bufio.NewReader(stdout))
	for {
		var m Message
		if err := dec.Decode(&m); err != nil {
			break
		}
		if m.Result != nil || m.Error != "" {
			ended[m.Loop] = true
		}
		messages <- m
	}
	w.stdin.Close()
	w.err = w.cmd.Wait()
	if w.err == nil && len(ended) < loops {
		w.err = errors.New("ended without a result")
	}
	text := ""
	if w.err != nil {
		text = fmt.Sprintf("worker process %d: %s", n, w.err)
		if said := w.stderr.Last(); said != "" {
			text += ": " + said
		}
	}
	for k := first; k < first+loops; k++ {
		if !ended[k] {
			messages <- Message{Loop: k, Lost: true, Error: text}
			text = "" // once for the process
		}
	}
}

// A LogTail keeps the end of what is written to it. Safe for concurrent use.
type LogTail struct {
	mu   sync.Mutex
	text []byte
}

const logTailSize = 4096

// Write never fails, and does not keep b.
func (t *LogTail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - logTailSize; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(b), nil
}

// Last is the last line that is not the hint at --help.
func (t *LogTail) Last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	said := ""
	for line := range strings.Lines(string(t.text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "run heartwheel ") {
			said = strings.TrimPrefix(line, "heartwheel: ")
		}
	}
	return said
}
