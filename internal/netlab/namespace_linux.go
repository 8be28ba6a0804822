package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A Namespace is a private network: interfaces, addresses, ports, rules and
// connection tracking of its own. All methods are safe for concurrent use.
type Namespace struct {
	Addr netip.Addr // its address on the cable

	t    testing.TB
	file *os.File // keeps it alive
}

// device is the interface at every cable's ends; a router has two.
const device = "cable"

// Do runs f inside n, on its own goroutine, so that f may end the test. What f
// makes stays inside for good: sockets that it opens and
// processes that it starts, such as by exec.Cmd.Start. Goroutines that it
// starts are outside. After the test's end there is no inside.
func (n *Namespace) Do(f func()) {
	if err := n.do(f); err != nil {
		n.t.Fatal(err)
	}
}

// do fails only without having run f.
func (n *Namespace) do(f func()) error {
	runtime.LockOSThread()
	home, err := currentNamespace()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("netlab: enter the namespace: %w", err)
	}
	defer comeHome(home)
	f()
	return nil
}

// comeHome takes this goroutine's thread back and gives it free.
func comeHome(home *os.File) {
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		panic(err) // other goroutines would use this thread
	}
	runtime.UnlockOSThread()
}

// Dial connects from inside n. addr has an IP address, as names are looked up
// by goroutines outside. It suits net/http's Transport.DialContext.
func (n *Namespace) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	if err := n.do(func() { conn, err = new(net.Dialer).DialContext(ctx, network, addr) }); err != nil {
		return nil, err
	}
	return conn, err
}

// currentNamespace opens the network namespace of this thread.
func currentNamespace() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// newNamespace makes a namespace with nothing but loopback in it.
func newNamespace(t testing.TB) *Namespace {
	t.Helper()
	file, err := unshare()
	if err != nil {
		skipOrFail(t, "make a network namespace", err)
	}
	t.Cleanup(func() { file.Close() })
	n := &Namespace{t: t, file: file}
	n.ip("link", "set", "lo", "up")
	return n
}

func unshare() (*os.File, error) {
	runtime.LockOSThread()
	home, err := currentNamespace()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, os.NewSyscallError("unshare", err)
	}
	defer comeHome(home)
	return currentNamespace()
}

// path names n for other processes while the test runs.
func (n *Namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// ip runs the ip command inside n.
func (n *Namespace) ip(args ...string) {
	n.t.Helper()
	var err error
	n.Do(func() {
		var out []byte
		if out, err = exec.Command("ip", args...).CombinedOutput(); err != nil && len(out) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
		}
	})
	if err != nil {
		skipOrFail(n.t, "ip "+strings.Join(args, " "), err)
	}
}

// set writes a setting of the kernel below /proc/sys/net, which shows each
// thread its own namespace.
func (n *Namespace) set(name, value string) {
	n.t.Helper()
	var err error
	n.Do(func() { err = os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644) })
	if err != nil {
		skipOrFail(n.t, "set "+name, err)
	}
}

// join lays a cable from device near of n to device far of other, and gives
// both ends an address, written as 192.0.2.1/24.
func (n *Namespace) join(near, nearAddr string, other *Namespace, far, farAddr string) {
	n.t.Helper()
	n.ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", other.path())
	n.up(near, nearAddr)
	other.up(far, farAddr)
}

func (n *Namespace) up(dev, addr string) {
	n.t.Helper()
	n.ip("addr", "add", addr, "dev", dev)
	n.ip("link", "set", dev, "up")
	n.Addr = netip.MustParsePrefix(addr).Addr()
}

// refusals are what a machine says that does not allow or does not have this.
var refusals = []error{
	unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.ENOENT,
	exec.ErrNotFound,
}

// skipOrFail ends the test: skipped if the machine refuses, failed otherwise.
func skipOrFail(t testing.TB, what string, err error) {
	t.Helper()
	text := err.Error()
	refused := strings.Contains(text, "not permitted") || strings.Contains(text, "not supported") ||
		strings.Contains(text, "Unknown device type")
	for _, r := range refusals {
		refused = refused || errors.Is(err, r)
	}
	if refused {
		t.Skipf("no private network here (it needs root, network namespaces, veth, nftables and the ip "+
			"command): %s: %v", what, err)
	}
	t.Fatalf("private network: %s: %v", what, err)
}
