package examples

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"heartwheel/codec"
	"heartwheel/internal/testcert"
)

// A balancer is a load balancer of docs/behind-a-proxy.md.
type balancer struct {
	heading string
	listen  string // in the configuration
	before  string // what the configuration lacks here; %s is a folder
	command []string
	module  string // a file that it needs
}

const nginxStream = "/usr/lib/nginx/modules/ngx_stream_module.so"

var balancers = []balancer{
	{heading: "HAProxy", listen: "bind :9000", command: []string{"haproxy", "-db", "-f"}},
	{heading: "nginx", listen: "listen 9000", module: nginxStream, command: []string{"nginx", "-c"},
		before: "load_module " + nginxStream + ";\ndaemon off;\nmaster_process off;\npid DIR/pid;\n" +
			"error_log stderr;\nevents {}\n"},
}

// Behind each load balancer of the page the server knows its clients' addresses.
func TestBehindBalancers(t *testing.T) {
	page, err := os.ReadFile("../docs/behind-a-proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range balancers {
		t.Run(b.heading, func(t *testing.T) {
			t.Parallel()
			block := configurationOf(t, string(page), b)
			s := startServer(t, "127.0.0.1:0", "--proxy-from", "127.0.0.1", "--log-level", "debug")
			addr := b.start(t, block, strings.NewReplacer("10.0.0.1:9000", s.addr))
			var c net.Conn
			for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
				var err error
				if c, err = net.Dial("tcp", addr); err == nil {
					break
				}
				if time.Now().After(end) {
					t.Fatal(err)
				}
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(limit))
			hello := codec.AppendData(nil, []byte("hello"))
			if _, err := c.Write(hello); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(hello))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != string(hello) {
				t.Fatalf("%q %v", got, err)
			}
			s.await(&s.err, `"addr":"`+c.LocalAddr().String()+`"`, 1)
			if n := s.metrics()[`heartwheel_refused_total{reason="proxy_header"}`]; n != 0 {
				t.Errorf("%g connections were refused for their headers", n)
			}
		})
	}
}

// configurationOf returns the configuration under the heading of b in the page.
func configurationOf(t *testing.T, page string, b balancer) string {
	t.Helper()
	_, section, _ := strings.Cut(page, "\n## "+b.heading+"\n")
	block := regexp.MustCompile("(?ms)^```[a-z]+\n(.*?)^```$").FindStringSubmatch(section)
	if block == nil {
		t.Fatal("the page has no configuration for it")
	}
	_, err := exec.LookPath(b.command[0])
	if err == nil && b.module != "" {
		_, err = os.Stat(b.module)
	}
	if err != nil {
		if *requireLanguages {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return block[1]
}

// start starts b with a configuration, and returns where it will listen.
func (b balancer) start(t *testing.T, block string, r *strings.Replacer) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = ln.Addr().String()
	_ = ln.Close()
	dir := t.TempDir()
	i := strings.LastIndexAny(b.listen, " :")
	text := strings.ReplaceAll(b.before, "DIR", dir) +
		strings.Replace(r.Replace(block), b.listen, strings.TrimRight(b.listen[:i], ":")+" "+addr, 1)
	file := filepath.Join(dir, "balancer.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, b.command[0], append(b.command[1:], file)...)
	return addr
}

var webBalancers = []balancer{
	{heading: "HAProxy, WebSocket", listen: "bind :443", command: []string{"haproxy", "-db", "-f"}},
	{heading: "nginx, WebSocket", listen: "listen 443", command: []string{"nginx", "-c"},
		before: "daemon off;\nmaster_process off;\npid DIR/pid;\nerror_log stderr;\nevents {}\n"},
}

// Behind each proxy of the page that speaks HTTP the server knows its clients' addresses
// too, whatever they claim, and the proxy its health.
func TestBehindWebProxies(t *testing.T) {
	page, err := os.ReadFile("../docs/behind-a-proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range webBalancers {
		t.Run(b.heading, func(t *testing.T) {
			t.Parallel()
			block := configurationOf(t, string(page), b)
			ca := testcert.New(t)
			cert, key := ca.Issue(t, "site", "localhost")
			site := filepath.Join(t.TempDir(), "site.pem")
			var pem []byte
			for _, file := range []string{cert, key} {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				pem = append(pem, text...)
			}
			if err := os.WriteFile(site, pem, 0o600); err != nil {
				t.Fatal(err)
			}
			s := startServer(t, "ws://127.0.0.1:0/", "--trusted-proxies", "127.0.0.1", "--log-level", "debug",
				"--ban", "192.0.2.9")
			dir := t.TempDir()
			own := "http {\naccess_log off;\n" // nginx's folders may be another user's
			for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				own += name + "_temp_path " + dir + ";\n"
			}
			addr := b.start(t, block, strings.NewReplacer("10.0.0.1:8080", s.addr, "/etc/ssl/site.pem", site,
				"http {", own))
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}} // not the proxy's
			d := websocket.Dialer{HandshakeTimeout: limit, NetDialContext: from.DialContext,
				TLSClientConfig: &tls.Config{RootCAs: ca.Pool, ServerName: "localhost"}}
			claim := http.Header{"X-Forwarded-For": {"192.0.2.9"}, "Forwarded": {"for=192.0.2.9"}}
			var c *websocket.Conn
			for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
				var err error
				if c, _, err = d.Dial("wss://"+addr+"/", claim); err == nil {
					break
				}
				if time.Now().After(end) {
					t.Fatal(err)
				}
			}
			defer func() { _ = c.Close() }()
			_ = c.SetReadDeadline(time.Now().Add(limit))
			if err := c.WriteMessage(websocket.BinaryMessage, []byte("\x03hello")); err != nil {
				t.Fatal(err)
			}
			if _, got, err := c.ReadMessage(); err != nil || string(got) != "\x03hello" {
				t.Fatalf("%q %v", got, err)
			}
			_ = c.Close()
			s.await(&s.err, `"addr":"127.0.0.2:0","reason":"peer_closed"`, 1)
		})
	}
}
