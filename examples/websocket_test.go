package examples

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"

	"heartwheel/codec"
)

// wsPackage is the npm package that the test with Node installs.
const wsPackage = "ws@8.23.0"

// clientJS is a client for browsers and Node: it connects again whenever its connection
// ends, and says what happens.
const clientJS = `function run(url, WebSocket, say) {
  const ws = new WebSocket(url);
  ws.binaryType = "arraybuffer";
  ws.onopen = () => { say("open"); ws.send("text"); ws.send(new Uint8Array([3, 0x62, 0x69, 0x6e])); };
  ws.onmessage = e => say("message " +
    Array.from(new Uint8Array(e.data), b => b.toString(16).padStart(2, "0")).join(""));
  ws.onclose = e => { say("close " + e.code); setTimeout(() => run(url, WebSocket, say), 200); };
  ws.onerror = () => {};
}
`

// A wsClient is a client of WebSocket that does what clientJS does.
type wsClient struct {
	name string
	mu   sync.Mutex
	said []string // guarded by mu
}

func (c *wsClient) say(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s == "close 1006" { // while there is no server
		return
	}
	c.said = append(c.said, s)
}

// await waits for all it has said to be want; of a message the beginning.
func (c *wsClient) await(t *testing.T, want ...string) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		c.mu.Lock()
		said := strings.Join(c.said, ", ")
		n := len(c.said)
		same := n == len(want)
		for i := range min(n, len(want)) {
			same = same && strings.HasPrefix(c.said[i], want[i])
		}
		c.mu.Unlock()
		if same {
			return
		}
		if n > len(want) || time.Now().After(end) {
			t.Errorf("%s says %s; want %s", c.name, said, strings.Join(want, ", "))
			return
		}
	}
}

var clientTexts = [][]byte{[]byte("text"), []byte("\x03bin")}

func (c *wsClient) gorilla(ctx context.Context, url string) {
	conn, resp, err := gorilla.DefaultDialer.DialContext(ctx, url, nil)
	if err != nil {
		return
	}
	_ = resp.Body.Close()
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	c.say("open")
	_ = conn.WriteMessage(gorilla.TextMessage, clientTexts[0])
	_ = conn.WriteMessage(gorilla.BinaryMessage, clientTexts[1])
	for {
		_, b, err := conn.ReadMessage()
		if e := new(gorilla.CloseError); errors.As(err, &e) {
			c.say(fmt.Sprint("close ", e.Code))
		}
		if err != nil {
			return
		}
		c.say("message " + hex.EncodeToString(b))
	}
}

func (c *wsClient) coder(ctx context.Context, url string) {
	conn, _, err := coder.Dial(ctx, url, nil)
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	c.say("open")
	_ = conn.Write(ctx, coder.MessageText, clientTexts[0])
	_ = conn.Write(ctx, coder.MessageBinary, clientTexts[1])
	for {
		_, b, err := conn.Read(ctx)
		if code := coder.CloseStatus(err); code != -1 {
			c.say(fmt.Sprint("close ", int(code)))
		}
		if err != nil {
			return
		}
		c.say("message " + hex.EncodeToString(b))
	}
}

// gwsEvents are those of a client of package gws.
type gwsEvents struct {
	gws.BuiltinEventHandler
	c *wsClient
}

func (h gwsEvents) OnOpen(s *gws.Conn) {
	h.c.say("open")
	_ = s.WriteMessage(gws.OpcodeText, clientTexts[0])
	_ = s.WriteMessage(gws.OpcodeBinary, clientTexts[1])
}

func (h gwsEvents) OnPing(s *gws.Conn, p []byte) { _ = s.WritePong(p) }

func (h gwsEvents) OnMessage(_ *gws.Conn, m *gws.Message) {
	h.c.say("message " + hex.EncodeToString(m.Bytes()))
	_ = m.Close()
}

func (h gwsEvents) OnClose(_ *gws.Conn, err error) {
	if e := new(gws.CloseError); errors.As(err, &e) {
		h.c.say(fmt.Sprint("close ", e.Code))
	}
}

func (c *wsClient) gws(ctx context.Context, url string) {
	conn, _, err := gws.NewClient(gwsEvents{c: c}, &gws.ClientOption{Addr: url})
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { _ = conn.NetConn().Close() })()
	conn.ReadLoop()
}

// again calls a client until the test ends, as one that reconnects.
func again(t *testing.T, url string, client func(context.Context, string)) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			client(ctx, url)
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// startNode runs the client with the npm package ws.
func (c *wsClient) startNode(t *testing.T, dir, url string) {
	t.Helper()
	file := filepath.Join(dir, "client.cjs")
	if err := os.WriteFile(file, []byte(clientJS+
		`run(process.argv[2], require("ws"), s => console.log(s));`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "node", file, url)
	go func() {
		for seen := 0; ; {
			p.mu.Lock()
			lines, more := p.out[seen:], p.more
			seen = len(p.out)
			p.mu.Unlock()
			for _, line := range lines {
				c.say(line)
			}
			select {
			case <-more:
			case <-p.exited:
				return
			}
		}
	}()
}

// startChromium runs the client in a page of the server.
func (c *wsClient) startChromium(t *testing.T, path, url string) {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless,
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(time.Minute),
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.Navigate(strings.Replace(url, "ws", "http", 1)),
		chromedp.Evaluate[chromedp.Void](clientJS+
			fmt.Sprintf(`window.said = []; run(%q, WebSocket, s => said.push(s)); 0`, url)),
	); err != nil {
		t.Fatal(err)
	}
	go func() {
		for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			said, _ := chromedp.Run(ctx, chromedp.Evaluate[[]string](`said.splice(0)`))
			for _, s := range said {
				c.say(s)
			}
		}
	}()
}

// freePort returns an address that was free.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

// httpBalancers are configurations that pass a WebSocket on.
var httpBalancers = map[string]string{
	"haproxy": `defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
listen heartwheel
  bind FRONT
  option httpchk GET /readyz
  server one BACK
`,
	"nginx": `daemon off; master_process off; pid DIR/pid; error_log stderr; events {}
http {
  access_log off; client_body_temp_path DIR/1; proxy_temp_path DIR/2; fastcgi_temp_path DIR/3;
  uwsgi_temp_path DIR/4; scgi_temp_path DIR/5;
  server {
    listen FRONT;
    location / {
      proxy_pass http://BACK;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_read_timeout 1h;
    }
  }
}
`,
}

// TestWebSocketClients has clients of several libraries, alone and behind load
// balancers: they connect, are answered, answer pings, learn of a drain by GOAWAY and
// the close code of RFC 6455, and come back to the next server.
func TestWebSocketClients(t *testing.T) {
	if !*long {
		t.Skip("it takes a browser, and a package from npm: -long")
	}
	addr := freePort(t)
	url := "ws://" + addr + "/"
	serve := func() *process {
		binary, err := buildServer()
		if err != nil {
			t.Fatal(err)
		}
		p := start(t, binary, "serve", "--listen", url, "--ops", "127.0.0.1:0", "--log-format", "json", "--log-level",
			"debug", "--beat", "500ms", "--beat-min", "500ms", "--drain", "2s")
		p.await(&p.err, `"msg":"listening"`, 1)
		return p
	}
	missing := func(err error) bool {
		if err != nil && *requireLanguages {
			t.Fatal(err)
		}
		if err != nil {
			t.Logf("without it: %v", err)
		}
		return err != nil
	}
	s := serve()
	var all []*wsClient
	add := func(name string) *wsClient {
		all = append(all, &wsClient{name: name})
		return all[len(all)-1]
	}
	dir := t.TempDir()
	node := exec.Command("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", dir, wsPackage)
	hasNode := !missing(node.Run())
	fronts := map[string]string{"": url}
	for name, config := range httpBalancers {
		_, err := exec.LookPath(name)
		if missing(err) {
			continue
		}
		front := freePort(t)
		own := t.TempDir()
		file := filepath.Join(own, "conf")
		config = strings.NewReplacer("FRONT", front, "BACK", addr, "DIR", own).Replace(config)
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if name == "haproxy" {
			start(t, name, "-db", "-f", file)
		} else {
			start(t, name, "-c", file)
		}
		fronts[" behind "+name] = "ws://" + front + "/"
		for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
			if resp, err := http.Get("http://" + front + "/healthz"); err == nil {
				_ = resp.Body.Close()
				break
			} else if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	for where, url := range fronts {
		again(t, url, add("gorilla"+where).gorilla)
		again(t, url, add("coder"+where).coder)
		again(t, url, add("gws"+where).gws)
		if hasNode {
			add("ws"+where).startNode(t, dir, url)
		}
		if path, err := exec.LookPath("chromium"); !missing(err) && where == "" {
			add("Chromium"+where).startChromium(t, path, url)
		}
	}
	const text, bin = "message 0374657874", "message 0362696e"
	goaway := fmt.Sprintf("message %02x", byte(codec.OpGoaway))
	first := []string{"open", text, bin}
	for _, c := range all {
		c.await(t, first...)
	}
	time.Sleep(3 * time.Second) // more than twice the idle timeout of 1.25 s
	for _, c := range all {
		c.await(t, first...)
	}
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
	left := append(first, goaway, "close 3001")
	for _, c := range all {
		c.await(t, left...)
	}
	serve()
	for _, c := range all {
		c.await(t, append(left, first...)...)
	}
	t.Logf("%d clients", len(all))
}
