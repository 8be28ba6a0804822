package server

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestClientOf(t *testing.T) {
	trusted := prefixes([]string{"10.0.0.0/8", "fd00::/8"})
	peer := netip.MustParseAddr("10.0.0.1")
	for _, tc := range []struct {
		xff, forwarded []string
		want           string // empty: an error
	}{
		{nil, nil, "10.0.0.1"},
		{[]string{"192.0.2.1"}, nil, "192.0.2.1"},
		{[]string{"203.0.113.9, 192.0.2.1"}, nil, "192.0.2.1"}, // the client has written the first
		{[]string{"203.0.113.9", "192.0.2.1,10.1.1.1 ,10.2.2.2"}, nil, "192.0.2.1"},
		{[]string{"10.3.3.3, 10.2.2.2"}, nil, "10.3.3.3"},
		{[]string{"192.0.2.1:4711"}, nil, "192.0.2.1"},
		{[]string{"2001:db8::1"}, nil, "2001:db8::1"},
		{[]string{"[2001:db8::1]:4711"}, nil, "2001:db8::1"},
		{[]string{"[2001:db8::1]"}, nil, "2001:db8::1"},
		{[]string{"::ffff:192.0.2.1"}, nil, "192.0.2.1"},
		{[]string{"192.0.2.1, unknown"}, nil, "10.0.0.1"},
		{[]string{"192.0.2.1, unknown, 10.2.2.2"}, nil, "10.2.2.2"},
		{[]string{""}, nil, "10.0.0.1"},
		{nil, []string{"for=192.0.2.1;proto=https"}, "192.0.2.1"},
		{nil, []string{`For="[2001:db8::1]:4711"; by=10.0.0.1, proto=http;for=10.2.2.2`}, "2001:db8::1"},
		{nil, []string{"for=_hidden"}, "10.0.0.1"},
		{[]string{"192.0.2.1"}, []string{"for=192.0.2.1"}, "192.0.2.1"},
		{[]string{"192.0.2.1"}, []string{"for=192.0.2.2"}, ""},
	} {
		h := http.Header{}
		if tc.xff != nil {
			h["X-Forwarded-For"] = tc.xff
		}
		if tc.forwarded != nil {
			h["Forwarded"] = tc.forwarded
		}
		got, err := clientOf(h, trusted, peer)
		if (err != nil) != (tc.want == "") || err == nil && got.String() != tc.want {
			t.Errorf("%q, %q: %v, %v, want %s", tc.xff, tc.forwarded, got, err, tc.want)
		}
	}
}

// The client that a trusted proxy names is the one that limits, bans, logs and the
// handler see, and the proxy itself is not limited.
func TestTrustedProxies(t *testing.T) {
	var log syncBuffer
	cfg := Config{Loops: 1, Listen: []string{"ws://127.0.0.1:0/"}, AddressMax: 1, Ban: []string{"203.0.113.0/24"},
		Edge:   Edge{TrustedProxies: []string{"127.0.0.1", "10.0.0.0/8"}},
		Logger: logTo(&log, slog.LevelInfo)}
	s, urls := edgeURLs(t, cfg, addrHandler{})
	dialFor := func(client string) (*websocket.Conn, int, string) {
		d := websocket.Dialer{HandshakeTimeout: patience}
		h := http.Header{}
		if client != "" {
			h.Set("X-Forwarded-For", client)
		}
		c, resp, err := d.Dial(urls[0], h)
		if err != nil {
			if resp == nil {
				t.Fatal(err)
			}
			return nil, resp.StatusCode, resp.Header.Get("Retry-After")
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetReadDeadline(time.Now().Add(patience))
		_ = c.WriteMessage(websocket.BinaryMessage, []byte("\x03who"))
		_, b, err := c.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		return c, 0, string(b[1:])
	}
	first, _, addr := dialFor("198.51.100.1, 10.9.9.9")
	if addr != "198.51.100.1:0" {
		t.Errorf("the handler sees %s", addr)
	}
	// The banned one is what the client says.
	if _, _, addr := dialFor("203.0.113.1, 2001:db8::7"); addr != "[2001:db8::7]:0" {
		t.Errorf("the handler sees %s", addr)
	}
	if _, _, addr := dialFor(""); !strings.HasPrefix(addr, "127.0.0.1:") || strings.HasSuffix(addr, ":0") {
		t.Errorf("without a header the handler sees %s", addr)
	}
	if _, status, retry := dialFor("198.51.100.1"); status != http.StatusServiceUnavailable || retry == "" {
		t.Errorf("a second connection is answered %d, Retry-After %q", status, retry)
	}
	if _, status, _ := dialFor("203.0.113.1"); status != http.StatusForbidden {
		t.Errorf("a banned client is answered %d", status)
	}
	if len(log.lines("addr=203.0.113.1:0", "reason=banned")) != 1 {
		t.Errorf("the log says\n%s", log.lines())
	}
	_ = first.Close()
	for end := time.Now().Add(patience); s.Check().Sessions > 2 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if _, status, _ := dialFor("198.51.100.1"); status != 0 {
		t.Errorf("after the first has gone, its address is answered %d", status)
	}
	if c := s.Check(); !c.OK {
		t.Error(c.Problems)
	}
}

// From others than trusted proxies the headers mean nothing.
func TestUntrustedForwarded(t *testing.T) {
	_, urls := edgeURLs(t, Config{Listen: []string{"ws://127.0.0.1:0/"},
		Edge: Edge{TrustedProxies: []string{"10.0.0.1"}}}, addrHandler{})
	c, _, err := websocket.DefaultDialer.Dial(urls[0], http.Header{"X-Forwarded-For": {"192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.WriteMessage(websocket.BinaryMessage, []byte("\x03who"))
	if _, b, err := c.ReadMessage(); err != nil || !strings.HasPrefix(string(b[1:]), "127.0.0.1:") {
		t.Errorf("the handler sees %q, %v", b, err)
	}
}
