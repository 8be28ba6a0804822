package server

import (
	"context"
	"log/slog"
	"net"
	"os/exec"
	"testing"

	"heartwheel/internal/netlab"
)

// A zoneHandler tells the zone of each peer's address.
type zoneHandler struct {
	Echo
	zones chan string
}

func (h zoneHandler) Open(c *Conn) { h.zones <- c.RemoteAddr().(*net.TCPAddr).Zone }

// TestZonesAreCleared: gnet would return the bytes of an IPv6 zone, a Go string, to
// a pool of buffers, for the next peer to overwrite.
func TestZonesAreCleared(t *testing.T) {
	lab := netlab.Cable(t)
	h := zoneHandler{zones: make(chan string, 1)}
	var device string // of the client
	lab.Client.Do(func() { device = addLinkLocal(t, "fe80::1/64") })
	var s *Server
	lab.Server.Do(func() {
		addLinkLocal(t, "fe80::2/64")
		var err error
		s, err = New(Config{Listen: []string{"tcp://[::]:9000"}, Logger: slog.New(slog.DiscardHandler)}, h)
		if err != nil {
			t.Fatal(err)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	c, err := lab.Client.Dial(ctx, "tcp", "[fe80::2%"+device+"]:9000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if zone := <-h.zones; zone != "" {
		t.Errorf("the peer's address has the zone %q", zone)
	}
}

// addLinkLocal gives the device of this network namespace an address, and returns
// the name of the device. It skips the test where there is no IPv6.
func addLinkLocal(t *testing.T, addr string) (device string) {
	devices, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		if d.Flags&net.FlagLoopback == 0 && d.Flags&net.FlagUp != 0 {
			device = d.Name
		}
	}
	if out, err := exec.Command("ip", "addr", "add", addr, "dev", device, "nodad").CombinedOutput(); err != nil {
		t.Skipf("no IPv6: ip addr add: %v: %s", err, out)
	}
	return device
}
