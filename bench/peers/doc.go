// Package peers has the servers that heartwheel is compared with, each a main
// package of its own with the contract of package peer, and the tests that hold
// them to it. Each is written as its own documentation has it:
//
//	epoll             golang.org/x/sys/unix: the floor in Go, without deadlines
//	gnet              gnet's README and gnet-examples/simple_protocol: its floor,
//	                  without deadlines
//	gnet-timingwheel  and RussellLuo/timingwheel: Stop, AfterFunc
//	gnet-timer        and time.Timer.Reset
//	nbio              nbio's README; SetReadDeadline as its comment says; -tls
//	                  puts llib's crypto/tls in between, as nbhttp does
//	netpoll           netpoll's docs/guide/guide_en.md, and a time.Timer, as its
//	                  own timeouts do not see a silent peer (its issue 61)
//	evio              evio's README and InputStream, without deadlines
//	goroutine         net and bufio; -buffer sets what bufio holds, -tls puts
//	                  crypto/tls in between
//	gorilla           WebSocket: gorilla/websocket's documentation
//	gws               WebSocket: gws's README
//	nbio-ws           WebSocket: nbio's nbhttp/websocket, KeepaliveTime
//	netty             Netty's echo example, LengthFieldBasedFrameDecoder and
//	                  IdleStateHandler; "netty -check" says whether it can run
//
// Where they differ from what is often seen, it is in their favour: all whole
// frames of a read are answered with one write and refresh the deadline once,
// and listeners set no keep-alive probes. heartwheel itself needs no package
// here: what is measured is the real "heartwheel serve". Centrifugo is not
// here: without a raw echo it compares only as a gateway.
package peers
