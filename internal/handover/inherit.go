package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"heartwheel/server"
)

// inheritEnv names the descriptors that a process was given by the one that
// started it, in their order from firstInherited on, separated by commas. A
// name is one of
//
//	ready                      a pipe: readyLine is written there once connections are taken
//	stderr                     what becomes standard error then; the starter reads it until then
//	tcp://HOST:PORT            a listening socket for this address of --listen
//	ops://HOST:PORT            the same for --ops
//	worker://INDEX/COUNT/…     the control socket of a worker: see underling
//	count://LINE               memory that the workers share, and the worker's line of it
//
// An address is written as in the settings: a port 0 there stays 0 here. ready
// is there whenever anything is.
const (
	inheritEnv     = envPrefix + "INHERIT"
	firstInherited = 3
	maxInherited   = 1000

	readyName  = "ready"
	stderrName = "stderr"
	tcpScheme  = "tcp://"
	opsScheme  = "ops://"

	workerScheme = "worker://"
	countScheme  = "count://"

	readyLine = "ready\n"
)

// parseInherit reads the value of inheritEnv into the names.
func parseInherit(text string) ([]string, error) {
	names := strings.Split(text, ",")
	if len(names) > maxInherited {
		return nil, fmt.Errorf("names more than %d descriptors", maxInherited)
	}
	seen := map[string]bool{}
	for _, name := range names {
		switch {
		case name == readyName || name == stderrName:
			if seen[name] {
				return nil, fmt.Errorf("names %s twice", name)
			}
			seen[name] = true
		case strings.HasPrefix(name, workerScheme) || strings.HasPrefix(name, countScheme): // open judges the rest
		case len(name) == len(tcpScheme) || !strings.HasPrefix(name, tcpScheme) && !strings.HasPrefix(name, opsScheme):
			return nil, fmt.Errorf("names %q, which this version does not know", name)
		}
	}
	if !seen[readyName] {
		return nil, fmt.Errorf("does not name %s", readyName)
	}
	return names, nil
}

// An inheritance is what a process was given by the one that started it; the
// zero one is nothing.
type inheritance struct {
	ready, stderr *os.File
	sockets       []server.Socket // those of tcp:// and of ops://
	worker        *underling      // nil: this process is no worker
	count         *server.SharedCount
}

// inherit opens what environ names. The descriptors are not passed on to
// children of this process, and neither is the variable.
func inherit(environ []string) (*inheritance, error) {
	in := &inheritance{}
	text := lookup(environ, inheritEnv)
	if text == "" {
		return in, nil
	}
	_ = os.Unsetenv(inheritEnv) // it fails only for names that are none
	names, err := parseInherit(text)
	if err != nil {
		return nil, fmt.Errorf("%s=%s %w; it is for processes that heartwheel starts: unset it", inheritEnv, text, err)
	}
	for i, name := range names {
		if err := in.open(name, firstInherited+i); err != nil {
			in.close()
			return nil, fmt.Errorf("%s=%s: descriptor %d, %s: %w; it is for processes that heartwheel starts: unset it",
				inheritEnv, text, firstInherited+i, name, err)
		}
	}
	return in, nil
}

func (in *inheritance) open(name string, fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	switch name {
	case readyName:
		in.ready = f
		return nil
	case stderrName:
		in.stderr = f
		return nil
	}
	defer f.Close() // what follows has a duplicate, or a mapping
	if text, ok := strings.CutPrefix(name, workerScheme); ok {
		var err error
		in.worker, err = newUnderling(text, f)
		return err
	}
	if text, ok := strings.CutPrefix(name, countScheme); ok {
		line, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("has no line")
		}
		in.count, err = mapCount(f, line)
		return err
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		ln.Close()
		return errors.New("is not a TCP socket")
	}
	in.sockets = append(in.sockets, server.Socket{Address: name, Listener: tcp})
	return nil
}

// take takes out the sockets whose address has that beginning.
func (in *inheritance) take(scheme string) (taken []server.Socket) {
	in.sockets = slices.DeleteFunc(in.sockets, func(o server.Socket) bool {
		wanted := strings.HasPrefix(o.Address, scheme)
		if wanted {
			taken = append(taken, o)
		}
		return wanted
	})
	return taken
}

// takeOps takes out the socket for the ops address addr, and closes those for
// others. It is nil if there is none.
func (in *inheritance) takeOps(addr string) (ln *net.TCPListener) {
	for _, o := range in.take(opsScheme) {
		if ln == nil && o.Address == opsScheme+addr {
			ln = o.Listener
			continue
		}
		o.Listener.Close()
	}
	return ln
}

// given reports whether another process started this one to take over, or as
// a worker.
func (in *inheritance) given() bool { return in.ready != nil }

// announce tells the process that started this one that connections are taken,
// and takes up the standard error that is to last.
func (in *inheritance) announce() error {
	if !in.given() {
		return nil
	}
	if in.stderr != nil {
		if err := unix.Dup2(int(in.stderr.Fd()), unix.Stderr); err != nil {
			return fmt.Errorf("standard error stays with the process before: %w", err)
		}
	}
	_, err := in.ready.WriteString(readyLine)
	in.close()
	return err
}

// close closes what nobody has taken.
func (in *inheritance) close() {
	for _, f := range []*os.File{in.ready, in.stderr} {
		if f != nil {
			f.Close()
		}
	}
	for _, o := range in.sockets {
		o.Listener.Close()
	}
	in.sockets = nil
}

// lookup is the value of a variable in environ, empty if it is not there. The
// last one counts, as in os/exec.
func lookup(environ []string, name string) string {
	for _, entry := range slices.Backward(environ) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}
