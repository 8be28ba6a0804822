package centrifugo

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/centrifugal/protocol"
)

// frameOf encodes commands as a client does.
func frameOf(t testing.TB, f Format, commands ...*protocol.Command) (frame []byte) {
	t.Helper()
	for _, c := range commands {
		if f == JSON {
			if len(frame) > 0 {
				frame = append(frame, '\n')
			}
			frame = c.AppendJSON(frame)
			continue
		}
		b, err := c.MarshalCF()
		if err != nil {
			t.Fatal(err)
		}
		frame = append(binary.AppendUvarint(frame, uint64(len(b))), b...)
	}
	return frame
}

func publishCommand(id uint32) *protocol.Command {
	return &protocol.Command{Id: id, Publish: &protocol.PublishRequest{
		Channel: "chat:index", Data: []byte(`"` + strings.Repeat("x", 98) + `"`)}}
}

// A frame that ends inside a command is refused wherever it ends, and where it
// ends between two commands the first one counts.
func TestTruncated(t *testing.T) {
	first := len(frameOf(t, Protobuf, publishCommand(1)))
	frame := frameOf(t, Protobuf, publishCommand(1), publishCommand(2))
	for n := range len(frame) {
		commands, at := 0, 0
		var err error
		for at < n && err == nil {
			var cmd *protocol.Command
			var size int
			if cmd, size, err = decode(Protobuf, frame[at:n:n], 128); err == nil {
				at += size
				if commands++; cmd.Id != uint32(commands) {
					t.Fatalf("%d bytes: command %d has id %d", n, commands, cmd.Id)
				}
			}
		}
		whole := n == 0 || n == first
		if whole != (err == nil) || commands != n/first {
			t.Fatalf("%d bytes of %d: %d commands, %v", n, len(frame), commands, err)
		}
		if err != nil && !errors.Is(err, errTruncated) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

// Nothing that was decoded changes with the frame.
func TestDecodedIsOwn(t *testing.T) {
	for _, f := range []Format{JSON, Protobuf} {
		frame := frameOf(t, f, publishCommand(7))
		cmd, _, err := decode(f, frame, 128)
		if err != nil {
			t.Fatal(err)
		}
		clear(frame)
		if cmd.Publish.Channel != "chat:index" || !strings.HasPrefix(string(cmd.Publish.Data), `"xxx`) {
			t.Errorf("%v: %v", f, cmd)
		}
	}
}

func TestDepth(t *testing.T) {
	for _, c := range []struct {
		text string
		most int
		deep bool
	}{
		{`{"a":[[]]}`, 3, false},
		{`{"a":[[]]}`, 2, true},
		{`[][][][]`, 1, false},
		{`"[[[["`, 1, false},
		{`{"a\"[[[":"\\"}`, 1, false},
		{`{"\\":[1]}`, 1, true},
		{strings.Repeat("[", 60000), 128, true},
		{"\"\\", 1, false},
	} {
		if got := tooDeep([]byte(c.text), c.most); got != c.deep {
			t.Errorf("%.20s, %d: %v", c.text, c.most, got)
		}
	}
	// A tree of filters has a bound in Protobuf too.
	deep := []byte{}
	for range 5000 {
		deep = append(binary.AppendUvarint([]byte{6<<3 | 2}, uint64(len(deep))), deep...)
	}
	sub := append(binary.AppendUvarint([]byte{13<<3 | 2}, uint64(len(deep))), deep...)
	cmd := append(binary.AppendUvarint([]byte{5<<3 | 2}, uint64(len(sub))), sub...)
	frame := append(binary.AppendUvarint(nil, uint64(len(cmd))), cmd...)
	if _, _, err := decode(Protobuf, frame, 128); err == nil {
		t.Error("5,000 filters in each other are taken")
	}
}

func TestCommandID(t *testing.T) {
	for text, id := range map[string]uint32{
		`{"id":12,"publish":oops`: 12, `  {"id":1,`: 1, `{"id":999999999,"x"`: 999999999,
		`{"id":9999999999,`: 0, `{"id":,`: 0, `{"id":"1",`: 0, `{"id":12`: 0, `{"id":12}`: 0, `{"x":1}`: 0, ``: 0,
		`{"id":-1,`: 0,
	} {
		if got := commandID([]byte(text)); got != id {
			t.Errorf("%s: %d, want %d", text, got, id)
		}
	}
}

func fuzzDecode(f *testing.F, format Format) {
	f.Add(frameOf(f, format, publishCommand(1), publishCommand(2)))
	f.Add(frameOf(f, format, &protocol.Command{Id: 1, Connect: &protocol.ConnectRequest{Token: "t"}}))
	f.Add(frameOf(f, format, &protocol.Command{}, &protocol.Command{Send: &protocol.SendRequest{Data: []byte("1")}}))
	f.Add(frameOf(f, format, &protocol.Command{Id: 3, Subscribe: &protocol.SubscribeRequest{Channel: "a",
		Tf: &protocol.FilterNode{Op: "not", Nodes: []*protocol.FilterNode{{Key: "k"}}}}}))
	f.Add([]byte("{\"id\":2,\"publish\":{\"data\":oops}}\n{}"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		for at := 0; at < len(frame); {
			cmd, size, err := decode(format, frame[at:], 128)
			if size < 0 || size > len(frame)-at || err == nil && (size == 0 || cmd == nil) {
				t.Fatalf("%d bytes of %d, %v", size, len(frame)-at, err)
			}
			if err != nil {
				break
			}
			// What was decoded, encoded again, is the same command.
			again := frameOf(t, format, cmd)
			cmd2, _, err := decode(format, again, 128)
			if err != nil {
				t.Fatalf("%q is encoded as %q: %v", frame[at:at+size], again, err)
			}
			maps := len(cmd.GetConnect().GetSubs()) > 1 || len(cmd.GetConnect().GetHeaders()) > 1 // in any order
			if third := frameOf(t, format, cmd2); string(third) != string(again) && !maps {
				t.Fatalf("%q and %q", again, third)
			}
			at += size
		}
		// A session takes it all, whatever it is, and ends once at most.
		out := &recordingOutput{t: t}
		s := New(Limits{}, &echoHub{}).Start(format, out)
		s.Input(1, frameOf(t, format, &protocol.Command{Id: 1, Connect: &protocol.ConnectRequest{}}))
		if !s.Connected() {
			t.Fatal("not connected")
		}
		if used := s.Input(2, frame); used != len(frame) {
			t.Fatalf("%d of %d bytes used", used, len(frame))
		}
		s.Close(DisconnectClosed)
	})
}

func FuzzJSON(f *testing.F)     { fuzzDecode(f, JSON) }
func FuzzProtobuf(f *testing.F) { fuzzDecode(f, Protobuf) }
