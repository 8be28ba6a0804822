package main

import (
	"strings"
	"syscall"
	"time"
)

// A scenario is what one transcript shows.
type scenario struct {
	name, config string
	only         string // one format
	steps        func(r *recorder)
}

const connect = `{"id":1,"connect":{}}`

// sends is a scenario of frames with one command each, after a connect.
func sends(name, config string, commands ...string) scenario {
	return scenario{name: name, config: config, steps: func(r *recorder) {
		if config == "secure" {
			r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"ann"}`, time.Hour) + `"}}`)
		} else {
			r.send(connect)
		}
		for _, c := range commands {
			r.send(c)
		}
	}}
}

// first is a scenario of frames without a connect.
func first(name string, frames ...string) scenario {
	return scenario{name: name, config: "insecure", steps: func(r *recorder) {
		for _, f := range frames {
			r.send(strings.Split(f, "\n")...)
		}
	}}
}

func (s scenario) in(config string) scenario {
	s.config = config
	return s
}

// frame is a scenario of a frame as it is, after a connect.
func frame(name, only, bytes string) scenario {
	return scenario{name: name, config: "insecure", only: only, steps: func(r *recorder) {
		r.send(connect)
		r.raw([]byte(bytes))
	}}
}

const (
	subA = `{"id":2,"subscribe":{"channel":"a"}}`
	long = "twenty-one-characters"
)

var scenarios = []scenario{
	// connect
	first("connect", connect),
	first("connect-data", `{"id":1,"connect":{"name":"js","version":"1.0","data":{"a":1}}}`),
	first("connect-twice", connect, `{"id":2,"connect":{}}`),
	first("connect-without-id", `{"connect":{}}`),
	first("connect-unknown-subs", `{"id":1,"connect":{"subs":{"a":{"recover":true,"epoch":"wrong","offset":3}}}}`),
	first("command-before-connect", subA),
	first("send-before-connect", `{"send":{"data":{}}}`),
	first("empty-command-before-connect", `{}`),
	first("several-commands", connect+"\n"+subA+"\n"+`{"id":3,"publish":{"channel":"a","data":{"n":1}}}`+"\n"+
		`{"id":4,"presence_stats":{"channel":"a"}}`+"\n"+`{"id":5,"unsubscribe":{"channel":"a"}}`),
	first("large-id", `{"id":4294967295,"connect":{}}`),
	{name: "connect-token", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"ann","info":{"name":"Ann"}}`, time.Hour) + `"}}`)
	}},
	{name: "connect-token-forever", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"ann"}`, 0) + `"}}`)
	}},
	{name: "connect-token-expired", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"ann"}`, -time.Hour) + `"}}`)
	}},
	{name: "connect-token-expired-more", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"`+token(`{"sub":"ann"}`, -time.Hour)+`"}}`, subA)
	}},
	{name: "connect-token-invalid", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"nonsense"}}`)
	}},
	{name: "connect-token-missing", config: "secure", steps: func(r *recorder) { r.send(connect) }},
	{name: "connect-token-subs", config: "secure", steps: func(r *recorder) {
		claims := `{"sub":"ann","subs":{"chat:s":{"data":{"hi":1},"override":{"recover":{"value":true}}}}}`
		r.send(`{"id":1,"connect":{"token":"` + token(claims, 0) + `"}}`)
		r.api("publish", `{"channel":"chat:s","data":{"n":1}}`)
		r.send(`{"id":2,"unsubscribe":{"channel":"chat:s"}}`)
	}},

	// frames
	frame("frame-empty", "json", ""),
	frame("frame-not-json", "json", "nonsense"),
	frame("frame-half-json", "json", `{"id":2,"publish":{"channel":"a","data":{"n":1}}`),
	frame("frame-invalid-data", "json", `{"id":2,"publish":{"channel":"a","data":{"n":oops}}}`),
	frame("frame-array", "json", `[{"id":2,"presence":{"channel":"a"}}]`),
	frame("frame-trailing-newline", "json", `{"id":2,"presence_stats":{"channel":"a"}}`+"\n"),
	frame("frame-blank-line", "json", `{"id":2,"presence_stats":{"channel":"a"}}`+"\n\n"+`{"id":3,"rpc":{}}`),
	frame("frame-spaces", "json", ` { "id" : 2 , "presence_stats" : { "channel" : "a" } } `),
	frame("frame-unknown-fields", "json",
		`{"id":2,"more":[1,{"x":null}],"presence_stats":{"channel":"a","other":true}}`),
	frame("frame-case", "json", `{"ID":2,"Presence_Stats":{"Channel":"a"}}`),
	frame("frame-null-fields", "json", `{"id":2,"publish":null,"presence_stats":{"channel":"a"}}`),
	frame("frame-negative-id", "json", `{"id":-2,"presence_stats":{"channel":"a"}}`),
	frame("frame-string-id", "json", `{"id":"2","presence_stats":{"channel":"a"}}`),
	frame("frame-empty", "protobuf", ""),
	frame("frame-zero", "protobuf", "\x00"),
	frame("frame-truncated", "protobuf", "\x08\x08\x02\x22"),
	frame("frame-nonsense", "protobuf", "\x03\xff\xff\xff"),
	frame("frame-half-length", "protobuf", "\x80"),
	frame("frame-unknown-fields", "protobuf", "\x0a\x08\x02\x4a\x03\x0a\x01a\xa0\x06\x07"),

	// ids
	sends("no-request", "insecure", `{"id":2}`),
	sends("ping-command", "insecure", `{"id":2,"ping":{}}`),
	sends("ping-and-more", "insecure", `{"id":2,"ping":{},"rpc":{}}`),
	sends("two-requests", "insecure", `{"id":2,"publish":{"channel":"a","data":1},"subscribe":{"channel":"a"}}`),
	sends("id-missing", "insecure", `{"subscribe":{"channel":"a"}}`),
	sends("id-again", "insecure", subA, `{"id":2,"unsubscribe":{"channel":"a"}}`, subA),
	sends("send", "insecure", `{"send":{"data":{"a":1}}}`),
	sends("pong-unasked", "insecure", `{}`),

	// subscribe
	sends("subscribe", "insecure", subA, `{"id":3,"unsubscribe":{"channel":"a"}}`,
		`{"id":4,"subscribe":{"channel":"a"}}`),
	sends("subscribe-again", "insecure", subA, `{"id":3,"subscribe":{"channel":"a"}}`),
	sends("subscribe-no-channel", "insecure", `{"id":2,"subscribe":{}}`),
	sends("subscribe-unknown-namespace", "insecure", `{"id":2,"subscribe":{"channel":"other:a"}}`),
	sends("subscribe-positioned", "insecure", `{"id":2,"subscribe":{"channel":"a","positioned":true}}`),
	sends("subscribe-recoverable", "insecure", `{"id":2,"subscribe":{"channel":"a","recoverable":true}}`),
	sends("subscribe-recover-empty", "insecure",
		`{"id":2,"subscribe":{"channel":"recover:empty","recover":true,"epoch":"wrong","offset":3}}`),
	sends("subscribe-recovered", "insecure", `{"id":2,"subscribe":{"channel":"recover:r"}}`,
		`{"id":3,"publish":{"channel":"recover:r","data":{"n":1}}}`,
		`{"id":4,"unsubscribe":{"channel":"recover:r"}}`,
		`{"id":5,"publish":{"channel":"recover:r","data":{"n":2}}}`,
		`{"id":6,"publish":{"channel":"recover:r","data":{"n":3}}}`,
		`{"id":7,"subscribe":{"channel":"recover:r","recover":true,"epoch":"EPOCH","offset":1}}`),
	sends("subscribe-unrecovered", "insecure", `{"id":2,"subscribe":{"channel":"recover:u"}}`,
		`{"id":3,"unsubscribe":{"channel":"recover:u"}}`,
		`{"id":4,"publish":{"channel":"recover:u","data":1}}`, `{"id":5,"publish":{"channel":"recover:u","data":2}}`,
		`{"id":6,"publish":{"channel":"recover:u","data":3}}`, `{"id":7,"publish":{"channel":"recover:u","data":4}}`,
		`{"id":8,"subscribe":{"channel":"recover:u","recover":true,"epoch":"EPOCH","offset":0}}`,
		`{"id":9,"unsubscribe":{"channel":"recover:u"}}`,
		`{"id":10,"subscribe":{"channel":"recover:u","recover":true,"epoch":"wrong","offset":4,"flag":2}}`,
		`{"id":11,"subscribe":{"channel":"recover:u"}}`),
	sends("subscribe-delta", "insecure", `{"id":2,"subscribe":{"channel":"a","delta":"fossil","recoverable":true}}`,
		`{"id":3,"publish":{"channel":"a","data":{"text":"a text that is long enough to be worth a delta"}}}`,
		`{"id":4,"publish":{"channel":"a","data":{"text":"a text that is long enough to be worth a Delta"}}}`),
	sends("subscribe-delta-not-allowed", "insecure", `{"id":2,"subscribe":{"channel":"plain:a","delta":"fossil"}}`),
	sends("subscribe-delta-unknown", "insecure", `{"id":2,"subscribe":{"channel":"a","delta":"other"}}`),
	sends("subscribe-filter", "insecure", `{"id":2,"subscribe":{"channel":"a","tf":{"key":"k","cmp":"eq","val":"v"}}}`),
	sends("subscribe-flag-id", "insecure", `{"id":2,"subscribe":{"channel":"a","flag":1}}`),
	sends("subscribe-map", "insecure", `{"id":2,"subscribe":{"channel":"a","type":1}}`),
	sends("subscribe-shared-poll", "insecure", `{"id":2,"subscribe":{"channel":"a","type":4}}`),
	sends("subscribe-join-leave", "insecure", `{"id":2,"subscribe":{"channel":"members:own","join_leave":true}}`,
		`{"id":3,"unsubscribe":{"channel":"members:own"}}`),
	{name: "join-and-leave", config: "insecure", steps: func(r *recorder) {
		r.send(connect)
		r.send(`{"id":2,"subscribe":{"channel":"members:jl","join_leave":true}}`)
		o := r.other("subscribes", connect, `{"id":2,"subscribe":{"channel":"members:jl"}}`)
		r.note("it unsubscribes")
		o.send(`{"id":3,"unsubscribe":{"channel":"members:jl"}}`)
		r.receive(nil)
		_ = o.conn.CloseNow()
	}},
	sends("limits", "limits", `{"id":2,"subscribe":{"channel":"a"}}`, `{"id":3,"subscribe":{"channel":"b"}}`,
		`{"id":4,"subscribe":{"channel":"c"}}`, `{"id":5,"unsubscribe":{"channel":"a"}}`,
		`{"id":6,"subscribe":{"channel":"c"}}`),
	sends("limit-length", "limits", `{"id":2,"subscribe":{"channel":"`+long+`"}}`,
		`{"id":3,"publish":{"channel":"`+long+`","data":1}}`, `{"id":4,"unsubscribe":{"channel":"`+long+`"}}`),
	sends("subscribe-denied", "secure", `{"id":2,"subscribe":{"channel":"a"}}`,
		`{"id":3,"subscribe":{"channel":"$private"}}`, `{"id":4,"subscribe":{"channel":"own:x#bob"}}`,
		`{"id":5,"subscribe":{"channel":"own:x#ann"}}`, `{"id":6,"subscribe":{"channel":"open:x"}}`),
	{name: "subscribe-token", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"ann"}`, time.Hour) + `"}}`)
		t := token(`{"sub":"ann","channel":"$p"}`, time.Hour)
		r.send(`{"id":2,"subscribe":{"channel":"$p","token":"` + t + `"}}`)
		r.send(`{"id":3,"sub_refresh":{"channel":"$p","token":"` + t + `"}}`)
		r.send(`{"id":4,"sub_refresh":{"channel":"$p"}}`)
		r.send(`{"id":5,"sub_refresh":{"channel":"$q","token":"` + t + `"}}`)
		old := token(`{"sub":"ann","channel":"$r"}`, -time.Hour)
		r.send(`{"id":6,"subscribe":{"channel":"$r","token":"` + old + `"}}`)
		r.send(`{"id":7,"subscribe":{"channel":"$r","token":"nonsense"}}`)
		r.send(`{"id":8,"subscribe":{"channel":"$r","token":"` + t + `"}}`)
	}},
	{name: "sub-refresh-expired", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"ann"}`, time.Hour) + `"}}`)
		claims := `{"sub":"ann","channel":"$p"}`
		r.send(`{"id":2,"subscribe":{"channel":"$p","token":"` + token(claims, time.Hour) + `"}}`)
		r.send(`{"id":3,"sub_refresh":{"channel":"$p","token":"` + token(claims, -time.Hour) + `"}}`)
	}},
	sends("sub-refresh-no-channel", "insecure", `{"id":2,"sub_refresh":{}}`),
	sends("sub-refresh-not-subscribed", "insecure", `{"id":2,"sub_refresh":{"channel":"a","token":"t"}}`),

	// refresh
	{name: "refresh", config: "secure", steps: func(r *recorder) {
		t := token(`{"sub":"ann"}`, time.Hour)
		r.send(`{"id":1,"connect":{"token":"` + t + `"}}`)
		r.send(`{"id":2,"refresh":{"token":"` + t + `"}}`)
		r.send(`{"id":3,"refresh":{"token":"` + token(`{"sub":"ann"}`, 0) + `"}}`)
		r.send(`{"id":4,"refresh":{"token":"` + token(`{"sub":"ann"}`, -time.Hour) + `"}}`)
	}},
	sends("refresh-no-token", "secure", `{"id":2,"refresh":{}}`),
	sends("refresh-invalid", "secure", `{"id":2,"refresh":{"token":"nonsense"}}`),

	// the other commands
	sends("unsubscribe-not-subscribed", "insecure", `{"id":2,"unsubscribe":{"channel":"a"}}`),
	sends("unsubscribe-no-channel", "insecure", `{"id":2,"unsubscribe":{}}`),
	sends("publish", "insecure", `{"id":2,"subscribe":{"channel":"pub"}}`,
		`{"id":3,"publish":{"channel":"pub","data":{"n":1}}}`, `{"id":4,"publish":{"channel":"pub","data":"text"}}`,
		`{"id":5,"publish":{"channel":"pub","data":null}}`, `{"id":6,"publish":{"channel":"pub"}}`,
		`{"id":7,"publish":{"channel":"other:a","data":1}}`),
	sends("publish-json", "insecure", `{"id":2,"publish":{"channel":"json:a"}}`),
	sends("publish-no-channel", "insecure", `{"id":2,"publish":{"data":1}}`),
	sends("publish-map", "insecure", `{"id":2,"publish":{"channel":"a","data":1,"type":1,"key":"k"}}`),
	sends("publish-denied", "secure", `{"id":2,"publish":{"channel":"chat:d","data":1}}`,
		`{"id":3,"subscribe":{"channel":"chat:d"}}`, `{"id":4,"publish":{"channel":"chat:d","data":1}}`),
	{name: "publish-newline", config: "insecure", only: "protobuf", steps: func(r *recorder) {
		r.send(connect)
		r.send(`{"id":2,"publish":{"channel":"nl","data":{ "a" : 1 }}}`)
	}},
	sends("presence", "insecure", subA, `{"id":3,"presence":{"channel":"presence-empty"}}`,
		`{"id":4,"presence_stats":{"channel":"presence-empty"}}`, `{"id":5,"presence":{"channel":"plain:a"}}`,
		`{"id":6,"presence_stats":{"channel":"plain:a"}}`, `{"id":7,"presence":{"channel":"other:a"}}`,
		`{"id":8,"subscribe":{"channel":"presence-own"}}`, `{"id":9,"presence":{"channel":"presence-own"}}`,
		`{"id":10,"presence_stats":{"channel":"presence-own"}}`),
	sends("presence-no-channel", "insecure", `{"id":2,"presence":{}}`),
	sends("presence-stats-no-channel", "insecure", `{"id":2,"presence_stats":{}}`),
	sends("presence-denied", "secure", `{"id":2,"presence":{"channel":"chat:a"}}`,
		`{"id":3,"presence_stats":{"channel":"chat:a"}}`, `{"id":4,"history":{"channel":"chat:a"}}`,
		`{"id":5,"history":{"channel":"open:a"}}`),
	sends("history", "insecure", `{"id":2,"history":{"channel":"hist","limit":-1}}`,
		`{"id":3,"publish":{"channel":"hist","data":{"n":1}}}`, `{"id":4,"publish":{"channel":"hist","data":{"n":2}}}`,
		`{"id":5,"publish":{"channel":"hist","data":{"n":3}}}`, `{"id":6,"history":{"channel":"hist"}}`,
		`{"id":7,"history":{"channel":"hist","limit":2}}`,
		`{"id":8,"history":{"channel":"hist","limit":1,"reverse":true}}`,
		`{"id":9,"history":{"channel":"hist","limit":10,"since":{"offset":2,"epoch":"EPOCH"}}}`,
		`{"id":10,"history":{"channel":"hist","limit":10,"since":{"offset":2,"epoch":"wrong"}}}`,
		`{"id":11,"history":{"channel":"hist","limit":10,"reverse":true,"since":{"offset":0,"epoch":"EPOCH"}}}`,
		`{"id":12,"history":{"channel":"plain:a"}}`, `{"id":13,"history":{"channel":"other:a"}}`),
	sends("history-no-channel", "insecure", `{"id":2,"history":{}}`),
	sends("rpc", "insecure", `{"id":2,"rpc":{"method":"none","data":{}}}`, `{"id":3,"rpc":{}}`),

	// pushes
	{name: "push-publication", config: "insecure", steps: func(r *recorder) {
		r.send(connect)
		r.send(`{"id":2,"subscribe":{"channel":"push"}}`)
		r.api("publish", `{"channel":"push","data":{"n":1},"tags":{"k":"v"}}`)
		r.api("publish", `{"channel":"push","data":[1,"two",null]}`)
	}},
	{name: "push-subscribe", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"ann"}`, time.Hour) + `"}}`)
		r.api("subscribe", `{"user":"ann","client":"CLIENT","channel":"chat:server","data":{"a":1}}`)
		r.send(`{"id":2,"subscribe":{"channel":"chat:server"}}`)
		r.api("publish", `{"channel":"chat:server","data":{"n":1}}`)
		r.api("unsubscribe", `{"user":"ann","channel":"chat:server"}`)
		r.send(`{"id":3,"subscribe":{"channel":"chat:server"}}`)
	}},
	{name: "push-unsubscribe", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"bea"}`, time.Hour) + `"}}`)
		r.send(`{"id":2,"subscribe":{"channel":"open:u"}}`)
		r.api("unsubscribe", `{"user":"bea","channel":"open:u"}`)
		r.send(`{"id":3,"unsubscribe":{"channel":"open:u"}}`)
	}},
	{name: "push-refresh", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"cem"}`, 2*time.Hour) + `"}}`)
		r.api("refresh", `{"user":"cem","client":"CLIENT","expire_at":`+later(time.Hour)+`}`)
	}},
	{name: "push-refresh-expired", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"dan"}`, time.Hour) + `"}}`)
		r.api("refresh", `{"user":"dan","client":"CLIENT","expired":true}`)
	}},
	{name: "disconnect", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"eva"}`, time.Hour) + `"}}`)
		r.api("disconnect", `{"user":"eva"}`)
	}},
	{name: "disconnect-custom", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"fay"}`, time.Hour) + `"}}`)
		r.api("disconnect", `{"user":"fay","disconnect":{"code":4000,"reason":"custom"}}`)
	}},
	{name: "expired", config: "secure", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"gus"}`, time.Hour) + `"}}`)
		r.api("refresh", `{"user":"gus","client":"CLIENT","expire_at":1}`)
	}},

	// time
	{name: "stale", config: "expiry", steps: func(r *recorder) { r.end() }},
	{name: "stale-refused", config: "expiry", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"ann"}`, -time.Hour) + `"}}`)
		r.end()
	}},
	{name: "connection-expires", config: "expiry", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"ann"}`, 3*time.Second) + `"}}`)
		r.end()
	}},
	{name: "subscription-expires", config: "expiry", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"bea"}`, 0) + `"}}`)
		r.send(`{"id":2,"subscribe":{"channel":"$s","token":"` +
			token(`{"sub":"bea","channel":"$s"}`, 3*time.Second) + `"}}`)
		r.await("unsubscribe")
		r.receive(nil)
	}},
	{name: "server-subscription-expires", config: "expiry", steps: func(r *recorder) {
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"cem"}`, 0) + `"}}`)
		r.api("subscribe", `{"user":"cem","channel":"open:x","expire_at":`+later(3*time.Second)+`}`)
		r.end()
	}},
	{name: "too-many-server-subscriptions", config: "expiry", steps: func(r *recorder) {
		claims := `{"sub":"dan","channels":["open:a","open:b","open:c"]}`
		r.send(`{"id":1,"connect":{"token":"` + token(claims, 0) + `"}}`)
		r.end()
	}},
	{name: "too-many-connections", config: "expiry", steps: func(r *recorder) {
		o := r.other("connects", `{"id":1,"connect":{"token":"`+token(`{"sub":"eva"}`, 0)+`"}}`)
		r.send(`{"id":1,"connect":{"token":"` + token(`{"sub":"eva"}`, 0) + `"}}`)
		r.end()
		_ = o.conn.CloseNow()
	}},
	{name: "shutdown", config: "shutdown", steps: func(r *recorder) {
		r.send(connect)
		r.note("SIGTERM")
		must(r.server.cmd.Process.Signal(syscall.SIGTERM))
		r.end()
		r.server.stop()
		*r.server = *must1(start(r.server.cmd.Path, configs["shutdown"]))
	}},

	// what an application decides
	sends("rpc-answers", "proxy", `{"id":2,"rpc":{"method":"m","data":{"answer":{"result":{"data":{"a":1}}}}}}`,
		`{"id":3,"rpc":{"data":{"answer":{"result":{}}}}}`,
		`{"id":4,"rpc":{"data":{"answer":{"error":{"code":104,"message":"method not found"}}}}}`,
		`{"id":5,"rpc":{"data":{"answer":{"error":{"code":1000,"message":"custom","temporary":true}}}}}`,
		`{"id":6,"rpc":{"data":{"answer":"fail"}}}`,
		`{"id":7,"rpc":{"data":{"answer":{"disconnect":{"code":4001,"reason":"enough"}}}}}`),
	sends("rpc-not-json", "proxy", `{"id":2,"rpc":{"data":{"answer":{"result":{"b64data":"/wA="}}}}}`),
	sends("publish-answers", "proxy", `{"id":2,"publish":{"channel":"p","data":{"n":1}}}`,
		`{"id":3,"publish":{"channel":"p","data":{"answer":{"error":{"code":111,"message":"m","temporary":true}}}}}`,
		`{"id":4,"publish":{"channel":"p","data":{"answer":{"error":{"code":113,"message":"p","temporary":true}}}}}`,
		`{"id":5,"publish":{"channel":"p","data":{"answer":"fail"}}}`,
		`{"id":6,"publish":{"channel":"p","data":{"answer":{"disconnect":{"code":4500,"reason":"never again"}}}}}`),
	sends("subscribe-answers", "proxy",
		`{"id":2,"subscribe":{"channel":"a","data":{"answer":{"result":{"data":{"topic":"t"}}}}}}`,
		`{"id":3,"subscribe":{"channel":"b","data":{"answer":{"error":{"code":101,"message":"unauthorized"}}}}}`,
		`{"id":4,"subscribe":{"channel":"b","data":{"answer":"fail"}}}`,
		`{"id":5,"subscribe":{"channel":"b","data":{"answer":{"result":{"expire_at":1}}}}}`,
		`{"id":6,"subscribe":{"channel":"b"}}`,
		`{"id":7,"subscribe":{"channel":"c","data":{"answer":{"disconnect":{"code":4000,"reason":"later"}}}}}`),
	first("connect-answer",
		`{"id":1,"connect":{"data":{"answer":{"result":{"user":"ann","data":{"hi":1},"info":{"n":2},`+
			`"subs":{"s":{"data":{"d":1},"override":{"force_recovery":{"value":true}}}}}}}}}`).in("proxy"),
	first("connect-answer-error",
		`{"id":1,"connect":{"data":{"answer":{"error":{"code":1001,"message":"no"}}}}}`).in("proxy"),
	first("connect-answer-disconnect",
		`{"id":1,"connect":{"data":{"answer":{"disconnect":{"code":4501,"reason":"go"}}}}}`).in("proxy"),
	first("connect-answer-fail", `{"id":1,"connect":{"data":{"answer":"fail"}}}`).in("proxy"),
	first("connect-answer-expired", `{"id":1,"connect":{"data":{"answer":{"result":{"expire_at":1}}}}}`).in("proxy"),
	sends("refresh-by-server", "proxy", `{"id":2,"refresh":{"token":"t"}}`),
	sends("sub-refresh-by-server", "proxy", `{"id":2,"subscribe":{"channel":"a"}}`,
		`{"id":3,"sub_refresh":{"channel":"a","token":"t"}}`),

	// pings
	{name: "ping-answered", config: "ping", steps: func(r *recorder) {
		r.send(connect)
		r.await("< {}")
		r.send(`{}`)
		r.await("< {}")
		r.send(`{}`)
	}},
	{name: "ping-answered-twice", config: "ping", steps: func(r *recorder) {
		r.send(connect)
		r.await("< {}")
		r.send(`{}`, `{}`)
	}},
	{name: "ping-unanswered", config: "ping", steps: func(r *recorder) {
		r.send(connect)
		r.await("x ")
	}},
}
