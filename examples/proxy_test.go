package examples

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"heartwheel/codec"
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
			_, section, _ := strings.Cut(string(page), "\n## "+b.heading+"\n")
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
			s := startServer(t, "127.0.0.1:0", "--proxy-from", "127.0.0.1", "--log-level", "debug")
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := ln.Addr().String()
			_ = ln.Close()
			dir := t.TempDir()
			text := strings.ReplaceAll(b.before, "DIR", dir) + strings.NewReplacer("10.0.0.1:9000", s.addr,
				b.listen, strings.TrimSuffix(b.listen, ":9000")+" "+addr).Replace(block[1])
			text = strings.Replace(text, "listen 9000 ", "listen ", 1)
			file := filepath.Join(dir, "balancer.conf")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			start(t, b.command[0], append(b.command[1:], file)...)
			var c net.Conn
			for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
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
