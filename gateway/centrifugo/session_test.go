package centrifugo

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/centrifugal/protocol"
)

// A recordingOutput keeps what a session sends, and sees that it ends once.
type recordingOutput struct {
	t       testing.TB
	sent    []string
	closed  *Disconnect
	resumed int
}

func (o *recordingOutput) Send(message []byte) {
	if o.closed != nil {
		o.t.Errorf("sent after the end: %q", message)
	}
	o.sent = append(o.sent, string(message))
}

func (o *recordingOutput) Close(d Disconnect) {
	if o.closed != nil {
		o.t.Errorf("closed twice: %v, %v", o.closed, d)
	}
	o.closed = &d
}

func (o *recordingOutput) Resume() { o.resumed++ }

// An echoHub allows everything. With hold it keeps commands.
type echoHub struct {
	hold   bool
	held   []Call
	left   []string
	closed []Disconnect
}

func (h *echoHub) do(c Call, answer func()) {
	if h.hold {
		h.held = append(h.held, c)
	} else {
		answer()
	}
}

func (h *echoHub) Connect(c Call, _ *protocol.ConnectRequest) {
	h.do(c, func() { c.Connected(testNow, &protocol.ConnectResult{Client: "c"}, Expiry{}) })
}
func (h *echoHub) Refresh(c Call, _ string) { h.do(c, func() { c.Refreshed(testNow, 0) }) }
func (h *echoHub) Subscribe(c Call, _ *protocol.SubscribeRequest) {
	h.do(c, func() { c.Subscribed(testNow, &protocol.SubscribeResult{}, Expiry{}) })
}
func (h *echoHub) SubRefresh(c Call, _, _ string)            { h.do(c, func() { c.SubRefreshed(testNow, 0) }) }
func (h *echoHub) Publish(c Call, _ string, _ []byte)        { h.do(c, c.Published) }
func (h *echoHub) Presence(c Call, _ string)                 { h.do(c, func() { c.Presence(nil) }) }
func (h *echoHub) PresenceStats(c Call, _ string)            { h.do(c, func() { c.PresenceStats(1, 1) }) }
func (h *echoHub) RPC(c Call, _ string, data []byte)         { h.do(c, func() { c.Result(data) }) }
func (h *echoHub) Send(*Session, []byte) error               { return nil }
func (h *echoHub) Closed(_ *Session, why Disconnect)         { h.closed = append(h.closed, why) }
func (h *echoHub) Left(_ *Session, ch string, _ Unsubscribe) { h.left = append(h.left, ch) }
func (h *echoHub) History(c Call, _ *protocol.HistoryRequest) {
	h.do(c, func() { c.History(&protocol.HistoryResult{}) })
}

const testNow = 1_800_000_000

// connected returns a session that has connected.
func connected(t testing.TB, l Limits, h Hub) (*Session, *recordingOutput) {
	t.Helper()
	out := &recordingOutput{t: t}
	s := New(l, h).Start(JSON, out)
	s.Input(testNow, []byte(`{"id":1,"connect":{}}`))
	out.sent = nil
	return s, out
}

func sent(t *testing.T, out *recordingOutput, want ...string) {
	t.Helper()
	if !slices.Equal(out.sent, want) {
		t.Errorf("sent:\n%s\nwant:\n%s", strings.Join(out.sent, "\n"), strings.Join(want, "\n"))
	}
	out.sent = nil
}

// Commands behind a connect wait for its answer.
func TestCommandsWaitForConnect(t *testing.T) {
	h := &echoHub{hold: true}
	out := &recordingOutput{t: t}
	s := New(Limits{}, h).Start(JSON, out)
	connect, rpc := `{"id":1,"connect":{}}`, `{"id":2,"rpc":{"data":1}}`
	frame := connect + "\n" + rpc
	used := s.Input(testNow, []byte(frame))
	if used != len(connect)+1 || len(h.held) != 1 {
		t.Fatalf("%d bytes used, %d commands with the hub", used, len(h.held))
	}
	h.hold = false
	h.held[0].Connected(testNow, &protocol.ConnectResult{Client: "c"}, Expiry{})
	if out.resumed != 1 {
		t.Fatalf("resumed %d times", out.resumed)
	}
	if n := s.Input(testNow, []byte(frame[used:])); n != len(rpc) {
		t.Fatalf("%d bytes used", n)
	}
	sent(t, out, `{"id":1,"connect":{"client":"c"}}`, `{"id":2,"rpc":{"data":1}}`)
}

// An unsubscribe waits for its subscribe, other commands do not.
func TestUnsubscribeWaitsForSubscribe(t *testing.T) {
	h := &echoHub{}
	s, out := connected(t, Limits{}, h)
	h.hold = true
	sub, unsub := `{"id":2,"subscribe":{"channel":"a"}}`, `{"id":3,"unsubscribe":{"channel":"a"}}`
	frame := sub + "\n" + unsub
	if used := s.Input(testNow, []byte(frame)); used != len(sub)+1 {
		t.Fatalf("%d bytes used", used)
	}
	if s.Subscribed("a") {
		t.Error("subscribed before the answer")
	}
	h.held[0].Subscribed(testNow, &protocol.SubscribeResult{}, Expiry{})
	if out.resumed != 1 || !s.Subscribed("a") {
		t.Fatalf("resumed %d times", out.resumed)
	}
	s.Input(testNow, []byte(unsub))
	sent(t, out, `{"id":2,"subscribe":{}}`, `{"id":3,"unsubscribe":{}}`)
	if !slices.Equal(h.left, []string{"a"}) {
		t.Errorf("left %q", h.left)
	}
}

// No more than Calls commands wait for the hub; their answers may come in any
// order, once each, and after the end to no effect.
func TestCalls(t *testing.T) {
	h := &echoHub{}
	s, out := connected(t, Limits{Calls: 2}, h)
	h.hold = true
	var frame []string
	for id := range 4 {
		frame = append(frame, fmt.Sprintf(`{"id":%d,"rpc":{}}`, id+2))
	}
	rest := strings.Join(frame, "\n")
	rest = rest[s.Input(testNow, []byte(rest)):]
	if len(h.held) != 2 || rest != frame[2]+"\n"+frame[3] {
		t.Fatalf("%d commands with the hub, left %q", len(h.held), rest)
	}
	h.held[1].Result([]byte("1"))
	h.held[1].Result([]byte("2"))
	if out.resumed != 1 {
		t.Fatalf("resumed %d times", out.resumed)
	}
	rest = rest[s.Input(testNow, []byte(rest)):]
	h.held[0].Fail(errors.New("broken"))
	sent(t, out, `{"id":3,"rpc":{"data":1}}`,
		`{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}`)
	s.Close(DisconnectShutdown)
	h.held[2].Result(nil)
	if *out.closed != DisconnectShutdown || !slices.Equal(h.closed, []Disconnect{DisconnectShutdown}) {
		t.Errorf("closed %v, hub %v", out.closed, h.closed)
	}
	if s.Input(testNow, []byte(rest)) != len(rest) || len(h.held) != 3 {
		t.Error("commands after the end")
	}
}

// Every length is bounded, and so is what a frame holds.
func TestLimits(t *testing.T) {
	l := Limits{FrameSize: 300, Commands: 3, ChannelLength: 10, TokenLength: 20, TextLength: 10, Channels: 2, Depth: 6}
	const bad = `"error":{"code":107,"message":"bad request"}}`
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, command := range []string{
		`"subscribe":{"channel":"` + x(11) + `"}`, `"publish":{"channel":"` + x(11) + `"}`,
		`"unsubscribe":{"channel":"` + x(11) + `"}`, `"presence":{"channel":"` + x(11) + `"}`,
		`"presence_stats":{"channel":"` + x(11) + `"}`, `"history":{"channel":"` + x(11) + `"}`,
		`"history":{"channel":"a","since":{"epoch":"` + x(11) + `"}}`, `"rpc":{"method":"` + x(11) + `"}`,
		`"subscribe":{"channel":"a","token":"` + x(21) + `"}`, `"subscribe":{"channel":"a","epoch":"` + x(11) + `"}`,
		`"subscribe":{"channel":"a","flag":4}`, `"subscribe":{"channel":"a","cursor":"x"}`,
		`"subscribe":{"channel":"a","phase":1}`, `"subscribe":{"channel":"a","limit":1}`,
		`"subscribe":{"channel":"a","asc":true}`, `"subscribe":{"channel":"a","tf":{}}`,
		`"publish":{"channel":"a","data":[[[[[1]]]]]}`, `"publish":{"channel":"a","data":oops}`,
		"\"publish\":{\"channel\":\"a\",\"data\":\"\xff\"}",
	} {
		h := &echoHub{hold: true}
		s, out := connectedHeld(t, l, h)
		s.Input(testNow, []byte(`{"id":2,`+command+`}`))
		if !slices.Equal(out.sent, []string{`{"id":2,` + bad}) || len(h.held) != 0 {
			t.Errorf("%s: %q, closed %v, %d commands with the hub", command, out.sent, out.closed, len(h.held))
		}
	}
	out := &recordingOutput{t: t}
	s := New(l, &echoHub{}).Start(Protobuf, out)
	s.Input(testNow, frameOf(t, Protobuf, &protocol.Command{Id: 1, Connect: &protocol.ConnectRequest{}},
		&protocol.Command{Id: 2, Subscribe: &protocol.SubscribeRequest{Channel: "\xff"}}))
	if out.closed == nil || *out.closed != DisconnectBadRequest {
		t.Errorf("a channel that is not UTF-8: closed %v", out.closed)
	}
	for _, frame := range []string{
		`{"id":2,"rpc":{"data":"` + x(300) + `"}}`,
		strings.Repeat(`{"id":2,"rpc":{}}`+"\n", 4),
		`{"id":2,"publish":{"data":1}}`, `{"id":2,"history":{}}`, `{"id":2,"refresh":{"token":"t"}}`,
	} {
		s, out := connected(t, l, &echoHub{})
		s.Input(testNow, []byte(frame))
		if out.closed == nil || *out.closed != DisconnectBadRequest {
			t.Errorf("%.60s: closed %v", frame, out.closed)
		}
	}
	for _, connect := range []string{`"token":"` + x(21) + `"`, `"name":"` + x(11) + `"`, `"version":"` + x(11) + `"`,
		`"subs":{"` + x(11) + `":{}}`, `"subs":{"a":{"epoch":"` + x(11) + `"}}`} {
		h, out := &echoHub{}, &recordingOutput{t: t}
		s := New(l, h).Start(JSON, out)
		s.Input(testNow, []byte(`{"id":1,"connect":{`+connect+`}}`))
		sent(t, out, `{"id":1,`+bad)
		if s.Connected() {
			t.Errorf("connected with %s", connect)
		}
		s.Close(DisconnectStale)
		if len(h.closed) > 0 {
			t.Error("the hub hears of a session that it has not met")
		}
	}
}

// connectedHeld connects before h holds.
func connectedHeld(t testing.TB, l Limits, h *echoHub) (*Session, *recordingOutput) {
	h.hold = false
	s, out := connected(t, l, h)
	h.hold = true
	return s, out
}

// What expires ends at its time to the second: the client's own with a delay in
// which it may refresh, other connections at once.
func TestExpiry(t *testing.T) {
	h := &echoHub{hold: true}
	out := &recordingOutput{t: t}
	s := New(Limits{ExpiredDelay: 10}, h).Start(JSON, out)
	s.Input(testNow, []byte(`{"id":1,"connect":{}}`))
	h.held[0].Connected(testNow, &protocol.ConnectResult{Client: "c"}, Expiry{At: testNow + 100, Client: true})
	s.Input(testNow, []byte(`{"id":2,"subscribe":{"channel":"a"}}`))
	h.held[1].Subscribed(testNow, &protocol.SubscribeResult{}, Expiry{At: testNow + 50, Client: true})
	if at := s.Expires(); at != testNow+60 {
		t.Errorf("expires at %d", at-testNow)
	}
	s.Expire(testNow + 59)
	sent(t, out, `{"id":1,"connect":{"client":"c","expires":true,"ttl":100}}`,
		`{"id":2,"subscribe":{"expires":true,"ttl":50}}`)
	s.Expire(testNow + 60)
	sent(t, out, `{"push":{"channel":"a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}`)
	if at := s.Expires(); at != testNow+110 || !slices.Equal(h.left, []string{"a"}) {
		t.Errorf("expires at %d, left %q", at-testNow, h.left)
	}
	s.Refresh(testNow+60, testNow+200)
	sent(t, out, `{"push":{"refresh":{"expires":true,"ttl":140}}}`)
	s.Expire(testNow + 209)
	if out.closed != nil {
		t.Fatalf("closed %v", out.closed)
	}
	s.Expire(testNow + 210)
	if out.closed == nil || *out.closed != DisconnectExpired {
		t.Errorf("closed %v", out.closed)
	}
}

// A hub that answers after the expiry it gives answers 110, and the session is
// not subscribed.
func TestExpiredAnswers(t *testing.T) {
	h := &echoHub{}
	s, out := connectedHeld(t, Limits{}, h)
	s.Input(testNow, []byte(`{"id":2,"subscribe":{"channel":"a"}}`))
	if h.held[0].Subscribed(testNow, &protocol.SubscribeResult{}, Expiry{At: testNow}) || s.Subscribed("a") {
		t.Error("subscribed")
	}
	sent(t, out, `{"id":2,"error":{"code":110,"message":"expired"}}`)
}

// Data for a JSON client that is not JSON ends the connection rather than being
// written into its frame.
func TestReplyThatIsNotJSON(t *testing.T) {
	h := &echoHub{}
	s, out := connectedHeld(t, Limits{}, h)
	s.Input(testNow, []byte(`{"id":2,"rpc":{}}`))
	h.held[0].Result([]byte(`1,"x":2`))
	if len(out.sent) > 0 || out.closed == nil || *out.closed != DisconnectInappropriateProtocol {
		t.Errorf("sent %q, closed %v", out.sent, out.closed)
	}
	for data, ok := range map[string]bool{
		`{"a":1}`: true, ` 1 `: true, ``: false, `1,2`: false, "\xff": false, `"`: false, "\"\xff\"": false,
	} {
		if ValidData([]byte(data)) != ok {
			t.Errorf("ValidData(%q) is %v", data, !ok)
		}
	}
}

// Lost publications: the client subscribes again, or has to connect again.
func TestInsufficient(t *testing.T) {
	s, out := connected(t, Limits{}, &echoHub{})
	s.Input(testNow, []byte(`{"id":2,"subscribe":{"channel":"a"}}`))
	if err := s.Subscribe(testNow, "b", &protocol.Subscribe{}, 0); err != nil {
		t.Fatal(err)
	}
	out.sent = nil
	s.Insufficient("a")
	sent(t, out, `{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`)
	s.Insufficient("b")
	if *out.closed != DisconnectInsufficientState {
		t.Errorf("closed %v", out.closed)
	}
}

// The table of channels stays right through 10,000 of them.
func TestChannels(t *testing.T) {
	var c channels
	name := func(i int) string { return fmt.Sprint("channel", i) }
	for i := range 10000 {
		c.add(subscription{channel: name(i)})
	}
	for i := 0; i < 10000; i += 3 {
		c.remove(name(i))
		c.remove(name(i))
	}
	for i := range 10000 {
		if sub := c.find(name(i)); (sub != nil) != (i%3 != 0) || sub != nil && sub.channel != name(i) {
			t.Fatalf("%d: %v", i, sub)
		}
	}
	for i := range 10000 {
		c.remove(name(i))
	}
	if c.len() != 0 || c.all != nil || c.index != nil {
		t.Errorf("%d left", c.len())
	}
}

// As Centrifugo 6.9.1 ends a stream over HTTP.
func TestAppendDisconnect(t *testing.T) {
	const want = `{"push":{"disconnect":{"code":3503,"reason":"force disconnect"}}}`
	if got := AppendDisconnect(nil, JSON, DisconnectForced); string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
	b := AppendDisconnect(nil, Protobuf, DisconnectForced)
	var r protocol.Reply
	if err := r.UnmarshalCF(b[1:]); err != nil || int(b[0]) != len(b)-1 || render(&r) != want {
		t.Errorf("%x, %v: %s", b, err, render(&r))
	}
}

func TestReconnects(t *testing.T) {
	for code, want := range map[uint32]bool{3000: true, 3499: true, 3500: false, 3999: false, 4000: true, 4499: true,
		4500: false, 4999: false, 5000: true} {
		if got := (Disconnect{Code: code}).Reconnects(); got != want {
			t.Errorf("%d: %v", code, got)
		}
	}
}

// What an idle session costs beside its hub: bounded, as there are a million.
func TestSessionSize(t *testing.T) {
	if n := unsafe.Sizeof(Session{}); n > 112 {
		t.Errorf("a session takes %d bytes", n)
	}
	if n := unsafe.Sizeof(subscription{}); n > 32 {
		t.Errorf("a subscription takes %d bytes", n)
	}
}

// The server sends data, subscribes up to the limit, and takes back; nothing goes
// to a client that has not connected.
func TestPushes(t *testing.T) {
	h, out := &echoHub{}, &recordingOutput{t: t}
	s := New(Limits{Channels: 1}, h).Start(JSON, out)
	s.Message([]byte(`1`))
	s.Refresh(testNow, testNow+1)
	s.Unsubscribe("a", UnsubscribeServer)
	if err := s.Subscribe(testNow, "a", &protocol.Subscribe{}, 0); err == nil || len(out.sent) > 0 {
		t.Errorf("before connect: %v, %q", err, out.sent)
	}
	s.Input(testNow, []byte(`{"id":1,"connect":{}}`))
	out.sent = nil
	s.Message([]byte(`{"a":1}`))
	for _, c := range []struct {
		channel  string
		expireAt int64
		want     error
	}{
		{"a", testNow, ErrExpired}, {"a", testNow + 5, nil}, {"a", 0, ErrAlreadySubscribed}, {"b", 0, ErrLimitExceeded},
	} {
		if err := s.Subscribe(testNow, c.channel, &protocol.Subscribe{}, c.expireAt); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.channel, err, c.want)
		}
	}
	if got := slices.Collect(s.Channels()); !slices.Equal(got, []string{"a"}) {
		t.Errorf("channels %q", got)
	}
	s.Unsubscribe("a", UnsubscribeServer)
	s.Unsubscribe("a", UnsubscribeServer)
	sent(t, out, `{"push":{"message":{"data":{"a":1}}}}`, `{"push":{"channel":"a","subscribe":{}}}`,
		`{"push":{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`)
	s.Message([]byte(`no JSON`))
	if *out.closed != DisconnectInappropriateProtocol || len(h.left) != 1 || len(h.closed) != 1 {
		t.Errorf("closed %v, left %q, the hub's %v", out.closed, h.left, h.closed)
	}
}

// A ping may be answered once.
func TestPing(t *testing.T) {
	s, out := connected(t, Limits{}, &echoHub{})
	for range 2 {
		if string(s.Ping(nil)) != "{}" {
			t.Error("a ping is not {}")
		}
		s.Input(testNow, []byte(`{}`))
	}
	if out.closed != nil {
		t.Fatalf("closed %v", out.closed)
	}
	s.Input(testNow, []byte(`{}`))
	if out.closed == nil || *out.closed != DisconnectBadRequest {
		t.Errorf("closed %v", out.closed)
	}
}
