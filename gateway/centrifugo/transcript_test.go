package centrifugo

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/centrifugal/protocol"
	"github.com/centrifugal/protocol/cfjson"
)

// A difference is what happens in place of what Centrifugo does, and why.
type difference struct{ got, reason string }

// different are the transcripts that are not reproduced, by their files' names
// without the format. The table must shrink, unless the reason is a choice.
var different = map[string]difference{
	"frame-invalid-data": {`closed: ""`, "choice: a JSON command that begins with its id is answered 107"},
	"frame-half-json":    {`closed: ""`, "choice: as above"},
	"frame-case":         {`3501`, "choice: names of fields are those of the schema, in their case"},
	"limit-length":       {`{"id":3,"error":{"code":107,`, "choice: names are bounded in every command"},
	"subscribe-map":      {`{"id":2,"error":{"code":108,`, "choice: what is not supported needs no permission"},
	"publish-map":        {`{"id":2,"error":{"code":108,`, "choice: as above, and no internal error"},
}

// The session answers as Centrifugo did. The hub of the replay answers what the
// transcript says, but has no say in what must be the session's: see ownCodes. It
// answers at once and, where a frame has one command, later as well.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.txt")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d transcripts: %v", len(files), err)
	}
	used := map[string]bool{}
	for _, file := range files {
		name, _, _ := strings.Cut(filepath.Base(file), ".")
		used[name] = true
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := newReplay(string(text), strings.Contains(file, ".protobuf."))
			if err = p.run(); err == nil && !severalInFrame.Match(text) {
				late := newReplay(string(text), p.format == Protobuf)
				late.late = true
				err = late.run()
			}
			switch d, known := different[name]; {
			case known && err != nil && strings.Contains(err.Error(), d.got):
				t.Skip(d.reason)
			case known && err == nil:
				t.Error("is reproduced: take it out of the table")
			case err != nil:
				t.Errorf("%v\n%s", err, text)
			}
		})
	}
	for name := range different {
		if !used[name] {
			t.Errorf("the table names %s, and there is no such transcript", name)
		}
	}
}

// ownCodes are errors and disconnects that the session decides alone, and those
// that its owner decides: the hub of a replay never gives them as an answer.
// Centrifugo gives 3501 to a connect without credentials, and no other command.
var ownCodes = []uint32{105, 106, 3501, 3502, 3012}

var severalInFrame = regexp.MustCompile(`\n\+ |0a7b`)

const replayNow = 1_800_000_000

// A replay is a session, its hub and its output.
type replay struct {
	format  Format
	lines   []string // what is left of the transcript
	s       *Session
	calls   map[uint32]Call
	got     []string // messages that no line has asked for yet
	rest    []byte   // of a frame that Input stopped in
	resumed bool
	closed  string
	server  bool  // the server refreshes, not the client
	late    bool  // the hub answers after Input has returned
	until   int64 // when the connection or a subscription expires
}

func newReplay(text string, protobuf bool) *replay {
	p := &replay{calls: map[uint32]Call{}}
	if protobuf {
		p.format = Protobuf
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			p.lines = append(p.lines, strings.TrimSuffix(line, "\n"))
		}
	}
	l := Limits{}
	if strings.Contains(text, `configuration "limits"`) {
		l = Limits{Channels: 2, ChannelLength: 20}
	}
	p.server = strings.Contains(text, `configuration "proxy"`)
	p.s = New(l, replayHub{p}).Start(p.format, p)
	return p
}

// render shows a reply as transcripts do: as JSON. Data that is no JSON, as a delta, is in base64.
func render(r *protocol.Reply) string {
	show := func(data *protocol.Raw) {
		if !cfjson.ValidRaw(*data) {
			*data = protocol.Raw(`"base64:` + base64.StdEncoding.EncodeToString(*data) + `"`)
		}
	}
	if r.Push != nil && r.Push.Pub != nil {
		show(&r.Push.Pub.Data)
	}
	if r.Rpc != nil {
		show(&r.Rpc.Data)
	}
	return string(r.AppendJSON(nil))
}

// Send, Close and Resume are the output.
func (p *replay) Send(message []byte) {
	if p.format == JSON {
		p.got = append(p.got, string(message))
		return
	}
	size, n := binary.Uvarint(message)
	var r protocol.Reply
	if err := r.UnmarshalCF(message[n:]); err != nil || int(size) != len(message)-n {
		p.got = append(p.got, fmt.Sprintf("%x: %v", message, err))
		return
	}
	p.got = append(p.got, render(&r))
}

func (p *replay) Close(d Disconnect) { p.closed = fmt.Sprintf("x %d %s", d.Code, d.Reason) }
func (p *replay) Resume()            { p.resumed = true }

func (p *replay) input(frame []byte) {
	used := p.s.Input(replayNow, frame)
	p.rest = slices.Clone(frame[used:])
}

func (p *replay) run() error {
	var frame []byte
	for len(p.lines) > 0 {
		line := p.lines[0]
		p.lines = p.lines[1:]
		kind, what, _ := strings.Cut(line, " ")
		var err error
		switch kind {
		case ">", "+":
			if frame, err = p.append(frame, what); err != nil {
				return err
			}
			if len(p.lines) == 0 || !strings.HasPrefix(p.lines[0], "+") {
				p.input(frame)
				frame = nil
			}
		case "hex":
			if frame, err = hex.DecodeString(what); err != nil {
				return err
			}
			p.input(frame)
			frame = nil
		case "<":
			err = p.expect(what)
		case "x":
			err = p.expectClose(line)
		default:
			return fmt.Errorf("line %q", line)
		}
		if err != nil {
			return err
		}
		if p.resumed && len(p.rest) > 0 {
			p.resumed = false
			p.input(p.rest)
		}
	}
	switch {
	case len(p.got) > 0:
		return fmt.Errorf("also sent: %q", p.got)
	case p.closed != "":
		return fmt.Errorf("also closed: %s", p.closed)
	case len(p.calls) > 0:
		return fmt.Errorf("the hub has %d commands too many", len(p.calls))
	}
	return nil
}

func (p *replay) append(frame []byte, command string) ([]byte, error) {
	if p.format == JSON {
		if len(frame) > 0 {
			frame = append(frame, '\n')
		}
		return append(frame, command...), nil
	}
	var c protocol.Command
	if err := cfjson.Unmarshal([]byte(command), &c, 0); err != nil {
		return nil, err
	}
	b, err := c.MarshalCF()
	return append(binary.AppendUvarint(frame, uint64(len(b))), b...), err
}

// expect compares the next message with a line. If there is none, it is the
// hub's turn.
func (p *replay) expect(line string) error {
	if len(p.got) == 0 {
		if err := p.act(line); err != nil {
			return err
		}
	}
	if len(p.got) == 0 {
		return fmt.Errorf("nothing sent (closed: %q) in place of %s", p.closed, line)
	}
	got := p.got[0]
	p.got = p.got[1:]
	if got != line {
		return fmt.Errorf("sent: %s\nwant: %s", got, line)
	}
	return nil
}

// act does what makes the session send a line: it answers the command, or it
// pushes.
func (p *replay) act(line string) error {
	var r protocol.Reply
	if err := cfjson.Unmarshal([]byte(line), &r, 0); err != nil {
		return err
	}
	if line == "{}" {
		p.got = append(p.got, "{}")
		if b := p.s.Ping(nil); p.format == JSON && string(b) != "{}" || p.format == Protobuf && string(b) != "\x00" {
			return fmt.Errorf("ping is %q", b)
		}
		return nil
	}
	if r.Id == 0 && r.Push != nil {
		return p.push(r.Push)
	}
	c, ok := p.calls[r.Id]
	if !ok {
		return nil
	}
	delete(p.calls, r.Id)
	return p.answer(c, &r)
}

func (p *replay) expiry(expires bool, ttl uint32) Expiry {
	if !expires {
		return Expiry{Client: !p.server}
	}
	p.until = replayNow + int64(ttl)
	return Expiry{At: p.until, Client: !p.server}
}

func (p *replay) answer(c Call, r *protocol.Reply) error {
	switch {
	case r.Error != nil:
		if slices.Contains(ownCodes, r.Error.Code) {
			return fmt.Errorf("the hub was asked for what is error %d", r.Error.Code)
		}
		c.Fail(&Error{Code: r.Error.Code, Message: r.Error.Message, Temporary: r.Error.Temporary})
	case r.Connect != nil:
		e := p.expiry(r.Connect.Expires, r.Connect.Ttl)
		r.Connect.Expires, r.Connect.Ttl = false, 0
		c.Connected(replayNow, r.Connect, e)
	case r.Refresh != nil:
		c.Refreshed(replayNow, p.expiry(r.Refresh.Expires, r.Refresh.Ttl).At)
	case r.Subscribe != nil:
		e := p.expiry(r.Subscribe.Expires, r.Subscribe.Ttl)
		r.Subscribe.Expires, r.Subscribe.Ttl = false, 0
		c.Subscribed(replayNow, r.Subscribe, e)
	case r.SubRefresh != nil:
		c.SubRefreshed(replayNow, p.expiry(r.SubRefresh.Expires, r.SubRefresh.Ttl).At)
	case r.Publish != nil:
		c.Published()
	case r.Presence != nil:
		clients := r.Presence.Presence
		if len(clients) == 0 {
			clients = nil
		}
		c.Presence(clients)
	case r.PresenceStats != nil:
		c.PresenceStats(int(r.PresenceStats.NumClients), int(r.PresenceStats.NumUsers))
	case r.History != nil:
		if len(r.History.Publications) == 0 {
			r.History.Publications = nil
		}
		c.History(r.History)
	case r.Rpc != nil:
		unshow(&r.Rpc.Data)
		c.Result(r.Rpc.Data)
	default:
		return fmt.Errorf("an answer without a result")
	}
	return nil
}

var base64Data = regexp.MustCompile(`^"base64:(.*)"$`)

// unshow is the reverse of what render does to data.
func unshow(data *protocol.Raw) {
	if m := base64Data.FindSubmatch(*data); m != nil {
		*data, _ = base64.StdEncoding.DecodeString(string(m[1]))
	}
}

func (p *replay) push(push *protocol.Push) error {
	switch {
	case push.Pub != nil:
		unshow(&push.Pub.Data)
		p.Send(AppendPublication(nil, p.format, push.Channel, push.Pub))
	case push.Join != nil, push.Leave != nil:
		b, err := AppendReply(nil, p.format, &protocol.Reply{Push: push})
		p.Send(b)
		return err
	case push.Message != nil:
		p.s.Message(push.Message.Data)
	case push.Subscribe != nil:
		return p.s.Subscribe(replayNow, push.Channel, push.Subscribe, 0)
	case push.Unsubscribe != nil && push.Unsubscribe.Code == UnsubscribeExpired.Code:
		p.s.Expire(p.s.Expires())
	case push.Unsubscribe != nil:
		p.s.Unsubscribe(push.Channel, Unsubscribe{push.Unsubscribe.Code, push.Unsubscribe.Reason})
	case push.Refresh != nil:
		p.s.Refresh(replayNow, p.expiry(push.Refresh.Expires, push.Refresh.Ttl).At)
	default:
		return fmt.Errorf("a push of nothing")
	}
	return nil
}

// expectClose is for a line that says how the connection ends. If it has not
// ended, a command waits for the hub, which ends it, or the owner does.
func (p *replay) expectClose(line string) error {
	if len(p.got) > 0 {
		return fmt.Errorf("closed: %q, but first sent: %q", p.closed, p.got)
	}
	if p.closed == "" {
		if err := p.end(disconnectOf(line)); err != nil {
			return err
		}
	}
	if p.closed != line {
		return fmt.Errorf("closed: %q\nwant:   %q", p.closed, line)
	}
	p.closed = ""
	return nil
}

func disconnectOf(line string) (d Disconnect) {
	f := strings.SplitN(line, " ", 3)
	code, _ := strconv.Atoi(f[1])
	return Disconnect{uint32(code), f[2]}
}

func (p *replay) end(d Disconnect) error {
	for id, c := range p.calls {
		delete(p.calls, id)
		switch {
		case d == DisconnectInappropriateProtocol && c.op == opRPC:
			c.Result([]byte{0xff, 0}) // as the application did
			return nil
		case slices.Contains(ownCodes, d.Code) && c.op != opConnect:
			return fmt.Errorf("the hub was asked for what is disconnect %d", d.Code)
		}
		c.Fail(d)
		return nil
	}
	switch {
	case d == DisconnectExpired && p.until > 0:
		if at := p.s.Expires(); at > 0 {
			p.s.Expire(at)
		}
	case d.Code == DisconnectBadRequest.Code:
	default:
		p.s.Close(d)
	}
	return nil
}

type replayHub struct{ *replay }

// Send does what the transcript says next.
func (p replayHub) Send(*Session, []byte) error {
	if len(p.lines) == 0 || p.lines[0][0] != 'x' {
		return nil
	}
	d := disconnectOf(p.lines[0])
	return d
}

// keep answers a command, and pushes what comes before the answer.
func (p *replay) keep(c Call) {
	p.calls[c.id] = c
	for i := len(p.got); !p.late && i < len(p.lines) && p.calls[c.id] == c && p.lines[i][0] == '<'; i++ {
		if err := p.act(p.lines[i][2:]); err != nil {
			p.got = append(p.got, err.Error())
		}
	}
}

func (p *replay) Connect(c Call, _ *protocol.ConnectRequest)     { p.keep(c) }
func (p *replay) Refresh(c Call, _ string)                       { p.keep(c) }
func (p *replay) Subscribe(c Call, _ *protocol.SubscribeRequest) { p.keep(c) }
func (p *replay) SubRefresh(c Call, _, _ string)                 { p.keep(c) }
func (p *replay) Publish(c Call, _ string, _ []byte)             { p.keep(c) }
func (p *replay) Presence(c Call, _ string)                      { p.keep(c) }
func (p *replay) PresenceStats(c Call, _ string)                 { p.keep(c) }
func (p *replay) History(c Call, _ *protocol.HistoryRequest)     { p.keep(c) }
func (p *replay) RPC(c Call, _ string, _ []byte)                 { p.keep(c) }
func (p *replay) Left(*Session, string, Unsubscribe)             {}
func (p *replay) Closed(*Session, Disconnect)                    {}
