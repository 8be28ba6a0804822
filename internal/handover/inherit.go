package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"heartwheel/internal/address"
	"heartwheel/internal/admission"
	"heartwheel/internal/settings"
	"heartwheel/server"
)

// settings.InheritEnv names the descriptors that a process inherits from the
// one that started it, in their order from firstInherited on, separated by
// commas. A name is one of
//
//	ready                      a pipe: the child writes readyLine once it accepts connections
//	stderr                     standard error from then on; until then the parent reads it
//	tcp://HOST:PORT            a listening socket for this address of --listen
//	unix:///PATH               likewise
//	own+unix:///PATH           likewise; the process that has it last removes its file
//	ops://HOST:PORT            the same for --ops
//	worker://INDEX/COUNT/…     the control socket of a worker: see Control
//	count://SLOT               the connection count that workers share, and the worker's slot in it
//	settings                   of a worker: the content of the configuration file, in place of the file
//	reload                     likewise, as the file was when it was last reloaded
//
// An address is written as in the settings: port 0 stays 0. ready is always
// there.
const (
	firstInherited = 3
	maxInherited   = 1000

	readyName  = "ready"
	stderrName = "stderr"

	settingsName = "settings"
	reloadName   = "reload"

	ownPrefix = "own+"

	opsName      = "ops"
	OpsScheme    = opsName + "://"
	workerScheme = "worker://"
	countScheme  = "count://"

	readyLine = "ready\n"
)

// parseInherit reads the value of settings.InheritEnv into the names.
func parseInherit(text string) ([]string, error) {
	names := strings.Split(text, ",")
	if len(names) > maxInherited {
		return nil, fmt.Errorf("names more than %d descriptors", maxInherited)
	}
	seen := map[string]bool{}
	for _, name := range names {
		switch {
		case slices.Contains([]string{readyName, stderrName, settingsName, reloadName}, name):
			if seen[name] {
				return nil, fmt.Errorf("names %s twice", name)
			}
			seen[name] = true
		case strings.HasPrefix(name, workerScheme) || strings.HasPrefix(name, countScheme): // open checks the rest
		default:
			text := strings.TrimPrefix(name, ownPrefix)
			if _, err := address.Parse(text, address.TCP, address.Unix, opsName); err != nil {
				return nil, fmt.Errorf("names %q, which this version does not know", name)
			}
		}
	}
	if !seen[readyName] {
		return nil, fmt.Errorf("does not name %s", readyName)
	}
	return names, nil
}

// An Inheritance is what a process got from the one that started it. The zero
// value is nothing.
type Inheritance struct {
	Control *Control               // nil: this process is not a worker
	Count   *admission.SharedCount // nil: this process counts its connections alone

	Settings, Reload *settings.File // of a worker: see InheritedSettings; nil: there is none

	ready, stderr *os.File
	sockets       []server.Socket     // those of tcp://, unix:// and ops://
	owned, kept   []*net.UnixListener // those of unix:// whose files this process removes, and the others
}

// Inherit opens what environ names. Children of this process inherit neither
// the descriptors nor the variable.
func Inherit(environ []string) (*Inheritance, error) {
	in := &Inheritance{}
	text := Lookup(environ, settings.InheritEnv)
	if text == "" {
		return in, nil
	}
	_ = os.Unsetenv(settings.InheritEnv) // fails only for malformed names
	const unsetIt = "only heartwheel sets it, for processes that it starts: unset it"
	names, err := parseInherit(text)
	if err != nil {
		return nil, fmt.Errorf("%s=%s %w; "+unsetIt, settings.InheritEnv, text, err)
	}
	for i, name := range names {
		if err := in.open(name, firstInherited+i); err != nil {
			in.Close()
			return nil, fmt.Errorf("%s=%s: descriptor %d, %s: %w; "+unsetIt,
				settings.InheritEnv, text, firstInherited+i, name, err)
		}
	}
	return in, nil
}

func (in *Inheritance) open(name string, fd int) error {
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
	defer f.Close() // the rest keeps a duplicate, a mapping or the content
	if name == settingsName || name == reloadName {
		data, err := readSettings(f)
		if name == settingsName {
			in.Settings = &settings.File{Data: data}
		} else {
			in.Reload = &settings.File{Data: data}
		}
		return err
	}
	if text, ok := strings.CutPrefix(name, workerScheme); ok {
		var err error
		in.Control, err = newControl(text, f)
		return err
	}
	if text, ok := strings.CutPrefix(name, countScheme); ok {
		slot, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("has no slot")
		}
		in.Count, err = mapCount(f, slot)
		return err
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return err
	}
	text, own := strings.CutPrefix(name, ownPrefix)
	a, _ := address.Parse(text, address.TCP, address.Unix, opsName) // see parseInherit
	socket, ok := ln.(server.StreamListener)
	if !ok || ln.Addr().Network() != a.Network() {
		ln.Close()
		return fmt.Errorf("is not a %s socket but %s", a.Network(), ln.Addr().Network())
	}
	in.addSocket(text, socket, own)
	return nil
}

// addSocket adds a socket. Its file goes with this process, from Announce on, if own is
// set.
func (in *Inheritance) addSocket(text string, socket server.StreamListener, own bool) {
	if file, ok := socket.(*net.UnixListener); ok {
		if own {
			in.owned = append(in.owned, file)
		} else {
			in.kept = append(in.kept, file)
		}
	}
	in.sockets = append(in.sockets, server.Socket{Address: text, Listener: socket})
}

// Addresses returns the addresses of the sockets that nobody has taken.
func (in *Inheritance) Addresses() []string {
	var all []string
	for _, s := range in.sockets {
		all = append(all, s.Address)
	}
	return all
}

// Take removes and returns the sockets whose address has this scheme. They are the
// caller's to close.
func (in *Inheritance) Take(scheme string) (taken []server.Socket) {
	in.sockets = slices.DeleteFunc(in.sockets, func(s server.Socket) bool {
		has, _, _ := strings.Cut(s.Address, "://")
		wanted := strings.EqualFold(has, scheme)
		if wanted {
			taken = append(taken, s)
		}
		return wanted
	})
	return taken
}

// TakeListen is Take for all that clients connect to.
func (in *Inheritance) TakeListen() []server.Socket {
	return append(in.Take(address.TCP), in.Take(address.Unix)...)
}

// KeepFiles leaves the file of each unix socket where it is when the socket is closed:
// another process has it.
func KeepFiles(sockets []server.Socket) {
	for _, o := range sockets {
		if file, ok := o.Listener.(*net.UnixListener); ok {
			file.SetUnlinkOnClose(false)
		}
	}
}

// OwnFiles marks the sockets whose files go when this process ends, for a successor to
// do the same. Those that a service manager has opened, or another process, stay.
func (in *Inheritance) OwnFiles(sockets []server.Socket) []server.Socket {
	for i, o := range sockets {
		if file, ok := o.Listener.(*net.UnixListener); ok && !slices.Contains(in.kept, file) {
			sockets[i].Address = ownPrefix + o.Address
		}
	}
	return sockets
}

// TakeOps removes and returns the socket for the ops address addr, nil if there
// is none, and closes those for other ops addresses.
func (in *Inheritance) TakeOps(addr string) (ln *net.TCPListener) {
	wanted, _ := address.Parse(OpsScheme+addr, opsName) // fails for off, which no socket is for
	for _, s := range in.Take(opsName) {
		if a, _ := address.Parse(s.Address, opsName); ln == nil && a == wanted {
			ln, _ = s.Listener.(*net.TCPListener)
			continue
		}
		s.Listener.Close()
	}
	return ln
}

// FromParent reports whether a heartwheel process started this one, as its
// successor or as a worker.
func (in *Inheritance) FromParent() bool { return in.ready != nil }

// Announce tells the parent that this process accepts connections, and switches
// to the standard error that lasts.
func (in *Inheritance) Announce() error {
	if !in.FromParent() {
		return nil
	}
	if in.stderr != nil {
		if err := unix.Dup2(int(in.stderr.Fd()), unix.Stderr); err != nil {
			return fmt.Errorf("standard error stays with the parent process: %w", err)
		}
	}
	for _, file := range in.owned { // not before: the parent goes on if this process fails
		file.SetUnlinkOnClose(true)
		if isClosed(file) { // this process does not listen there
			_ = os.Remove(file.Addr().String())
		}
	}
	_, err := in.ready.WriteString(readyLine)
	in.Close()
	return err
}

func isClosed(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(uintptr) {})
	}
	return err != nil
}

// Close closes what has not been taken.
func (in *Inheritance) Close() {
	for _, f := range []*os.File{in.ready, in.stderr} {
		if f != nil {
			f.Close()
		}
	}
	for _, s := range in.sockets {
		s.Listener.Close()
	}
	in.sockets = nil
}

// Lookup returns the value of a variable in environ, empty if it is not there.
// The last one counts, as in os/exec.
func Lookup(environ []string, name string) string {
	for _, entry := range slices.Backward(environ) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}
