//go:build linux

package main

import (
	"cmp"
	"fmt"
	"time"

	"heartwheel/bench/report"
)

// A contender is a server under test and how it is started.
type contender struct {
	report.Contender
	pkg    string   // what go build is given, below the harness; empty: heartwheel itself
	module string   // whose version counts
	args   []string // beside those of the contract
	scheme string   // that it speaks; empty: tcp, and of heartwheel all
	slow   bool     // it compiles itself as it runs, and gets long to warm up
	check  bool     // it is asked with -check whether it can run here
	bin    string   // once it is built
}

// contenders has every server, in the order of the tables. To add one: a package
// below peers that keeps the contract of package peer, and a line here.
func contenders() []*contender {
	loops := func(name, title, module string, deadlines bool) *contender {
		return &contender{Contender: report.Contender{Name: name, Title: title, Deadlines: deadlines, Loops: true},
			pkg: "./peers/" + name, module: module}
	}
	const gnet = "github.com/panjf2000/gnet/v2"
	return []*contender{
		{Contender: report.Contender{Name: report.Subject, Title: "heartwheel serve", Deadlines: true,
			Loops: true}, module: gnet},
		loops(report.Floor, "bare gnet echo", gnet, false),
		loops("gnet-timingwheel", "gnet, timingwheel Stop + AfterFunc a frame",
			"github.com/RussellLuo/timingwheel", true),
		loops("gnet-timer", "gnet, time.Timer.Reset a frame", gnet, true),
		{Contender: report.Contender{Name: "goroutine", Title: "standard library, a goroutine and SetReadDeadline",
			Deadlines: true}, pkg: "./peers/goroutine"},
		{Contender: report.Contender{Name: "goroutine-512", Title: "the same with 512 B buffers", Deadlines: true},
			pkg: "./peers/goroutine", args: []string{"-buffer", "512"}},
		loops("nbio", "nbio, its deadlines", "github.com/lesismal/nbio", true),
		loops("netpoll", "netpoll, its deadlines", "github.com/cloudwego/netpoll", true),
		loops("evio", "evio, which has no deadlines", "github.com/tidwall/evio", false),
		loops("epoll", "raw epoll in Go: the floor", "golang.org/x/sys", false),
		{Contender: report.Contender{Name: "goroutine-tls", Title: "standard library, crypto/tls and a goroutine",
			Deadlines: true}, pkg: "./peers/goroutine", args: []string{"-tls"}, scheme: "tls"},
		{Contender: report.Contender{Name: "nbio-tls", Title: "nbio, its TLS and its deadlines", Deadlines: true,
			Loops: true}, pkg: "./peers/nbio", module: "github.com/lesismal/nbio", args: []string{"-tls"}, scheme: "tls"},
		{Contender: report.Contender{Name: "gorilla", Title: "gorilla/websocket, its deadlines", Deadlines: true},
			pkg: "./peers/gorilla", module: "github.com/gorilla/websocket", scheme: "ws"},
		{Contender: report.Contender{Name: "gws", Title: "gws, its deadlines", Deadlines: true},
			pkg: "./peers/gws", module: "github.com/lxzan/gws", scheme: "ws"},
		{Contender: report.Contender{Name: "nbio-ws", Title: "nbio, its WebSocket and its deadlines", Deadlines: true,
			Loops: true}, pkg: "./peers/nbio-ws", module: "github.com/lesismal/nbio", scheme: "ws"},
		{Contender: report.Contender{Name: "netty", Title: "Netty (Java, NIO), IdleStateHandler", Deadlines: true,
			Loops: true}, pkg: "./peers/netty", check: true, slow: true},
	}
}

// serving is what a server is started with.
type serving struct {
	timeout time.Duration // T
	procs   int           // GOMAXPROCS
	loops   int           // event loops
	outbox  string        // heartwheel's --outbox; empty: its default
	scheme  string        // that clients use; empty: tcp
	pem     string        // heartwheel's --tls-cert and --tls-key, with tls
}

// serves says whether the contender speaks the scheme.
func (c *contender) serves(scheme string) bool { return c.pkg == "" || c.scheme == scheme }

// target is a server's address for clients of the scheme.
func (s *serving) target(addr string) string { return cmp.Or(s.scheme, "tcp") + "://" + addr }

// arguments are those of the command line for a server on a free port.
func (c *contender) arguments(s serving) []string {
	if c.pkg != "" {
		return append([]string{"-addr", "127.0.0.1:0", "-timeout", s.timeout.String(),
			"-procs", fmt.Sprint(s.procs), "-loops", fmt.Sprint(s.loops)}, c.args...)
	}
	args := []string{"serve", "--listen", s.target("127.0.0.1:0"), "--ops", "127.0.0.1:0", "--log-format",
		"json", "--log-level", "info",
		"--timeout", s.timeout.String(), "--beat", max(time.Second, s.timeout*2/5).String(), "--loops",
		fmt.Sprint(s.loops), "--drain", "100ms"}
	if s.scheme == "tls" {
		args = append(args, "--tls-cert", s.pem, "--tls-key", s.pem)
	}
	if s.outbox != "" {
		args = append(args, "--outbox", s.outbox)
	}
	return args
}
