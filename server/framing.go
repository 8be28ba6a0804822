package server

import (
	"fmt"
	"reflect"
	"slices"

	"heartwheel/internal/address"
	"heartwheel/internal/auth"
	"heartwheel/internal/edge/lengthfield"
)

// The kinds of Framing.
const (
	FramingNative      = "native"
	FramingLengthField = "length-field"
	FramingVarint      = "varint"    // a length as protobuf's writeDelimitedTo has it, and the content
	FramingLines       = "lines"     // end with LF or CR LF; LF is what is sent
	FramingDelimiter   = "delimiter" // end with Framing.Delimiter
)

// KeepHeader is the Framing.Strip with which a message has its header.
const KeepHeader = -1

// A Framing is how clients that do not speak the native protocol tell messages apart,
// and which messages are beats. The Handler gets each other message as a DATA frame,
// and Conn.Send sends DATA as one. A frame is refused when it is known to be larger
// than Config.MaxFrame: with a length field the header counts, with the others the
// content alone. The zero value is the native protocol.
type Framing struct {
	Kind string // empty: FramingNative

	// Of FramingLengthField, in the terms of Netty's LengthFieldBasedFrameDecoder:
	//
	//	Offset     Width    Adjust           as long as the field says
	//	+---------+--------+----------------+--------------------------+
	//	| header  | length | rest of header | content                  |
	//	+---------+--------+----------------+--------------------------+
	Offset int  // bytes before the field (lengthFieldOffset)
	Width  int  // of the field: 1, 2, 3, 4 or 8 bytes (lengthFieldLength); 0: 4
	Little bool // the field is little-endian
	// Adjust is added to the field's value for the number of bytes behind it
	// (lengthAdjustment): -(Offset+Width) if the value counts the whole frame, the size
	// of the rest of the header if the value leaves that out.
	Adjust int
	// Strip is how many bytes at the front of a frame are not in the message
	// (initialBytesToStrip). 0: Offset + Width; KeepHeader: all are. What is sent is as
	// what comes: a message begins where it does in frames that arrive. The bytes before
	// are sent as 0, and the length field is filled in wherever it lies.
	Strip int

	Delimiter string // of FramingDelimiter

	// Messages as the Handler would get them; nil: none. Empty and not nil is the empty
	// message.
	Beat       []byte // from the client: a sign of life that the Handler does not get
	Answer     []byte // to Beat, where the client beats
	ServerBeat []byte // sent where this side beats, which needs one
}

// foreign reports whether f is not the native protocol.
func (f *Framing) foreign() bool { return f.Kind != "" && f.Kind != FramingNative }

// withDefaults returns f complete, with Strip as Netty counts it.
func (f Framing) withDefaults() Framing {
	if f.Kind == "" {
		f.Kind = FramingNative
	}
	if f.Kind == FramingLengthField {
		if f.Width == 0 {
			f.Width = 4
		}
		switch f.Strip {
		case 0:
			f.Strip = f.Offset + f.Width
		case KeepHeader:
			f.Strip = 0
		}
	}
	return f
}

// same reports whether f and g mean the same.
func (f Framing) same(g Framing) bool { return reflect.DeepEqual(f.withDefaults(), g.withDefaults()) }

// A cutter cuts a stream into messages, and makes frames of messages. Loop only.
type cutter interface {
	Next(in []byte) (p []byte, end bool, used int, err error)
	Need(in []byte) int
	Encode(dst, p []byte) (frame []byte, ok bool)
}

// cutter returns the cutter of a foreign f. shared: all connections may have the same.
func (f Framing) cutter(max int) (c cutter, shared bool) {
	f = f.withDefaults()
	switch f.Kind {
	case FramingLengthField:
		return &lengthfield.Field{Offset: f.Offset, Width: f.Width, Little: f.Little, Adjust: f.Adjust, Strip: f.Strip,
			Max: max}, true
	case FramingVarint:
		return &lengthfield.Varint{Max: max}, true
	case FramingLines:
		return lengthfield.Lines(max), false
	}
	return lengthfield.Delimiter(f.Delimiter, max), false
}

// framings returns the Framing of each Edge.
func (c *Config) framings() []Framing {
	all := []Framing{c.Framing}
	for _, l := range c.Listeners {
		all = append(all, l.Framing)
	}
	return all
}

// delimiterMost is the longest delimiter, in bytes.
const delimiterMost = 256

// validateFramings judges the Framing of each Edge.
func (c *Config) validateFramings() (errs []error) {
	check := func(prefix string, e *Edge, addresses ...string) {
		f := &e.Framing
		wrong := func(field string, value any, want string, args ...any) {
			errs = append(errs, &FieldError{prefix + "Framing." + field, fmt.Sprint(value), fmt.Sprintf(want, args...)})
		}
		if f.validate(c.MaxFrame, wrong); !f.foreign() || errs != nil {
			return
		}
		stream := func(text string) bool {
			a, err := parseListen(text)
			return err != nil || a.Scheme != address.WS && a.Scheme != address.WSS
		}
		if !slices.ContainsFunc(addresses, stream) {
			wrong("Kind", f.Kind, "is for tcp and tls, as ws and wss have frames of their own; "+
				"listen on such an address, or leave it out")
		}
		if c.Beats == ServerBeats && f.ServerBeat == nil {
			wrong("Kind", f.Kind, "needs Config.Framing.ServerBeat, as Config.Beats is server: "+
				"the message that the server sends then")
		}
		if c.RequireHello {
			wrong("Kind", f.Kind, "has no HELLO, which Config.RequireHello asks for; leave one out")
		}
		if !e.Auth.off() && e.Auth.Mode != string(auth.MTLS) {
			wrong("Kind", f.Kind, "has no HELLO with a token, which Config.Auth = %s asks for; "+
				"set that to none or mtls", e.Auth.Mode)
		}
	}
	check("", &c.Edge, c.Listen...)
	for i := range c.Listeners {
		l := &c.Listeners[i]
		check(fmt.Sprintf("Listeners[%d].", i), &l.Edge, l.Address)
	}
	return errs
}

// validate judges f alone, for frames of up to max bytes.
func (f *Framing) validate(max int, wrong func(field string, value any, want string, args ...any)) {
	bad := false
	check := func(ok bool, field string, value any, want string, args ...any) {
		if !ok {
			bad = true
			wrong(field, value, want, args...)
		}
	}
	kinds := []string{FramingNative, FramingLengthField, FramingVarint, FramingLines, FramingDelimiter}
	if check(f.Kind == "" || slices.Contains(kinds, f.Kind), "Kind", f.Kind,
		"must be native, length-field, varint, lines or delimiter"); bad {
		return
	}
	if f.Kind != FramingLengthField {
		const want = "is for Config.Framing = length-field; set that too, or leave it out"
		check(f.Offset == 0, "Offset", f.Offset, want)
		check(f.Width == 0, "Width", f.Width, want)
		check(!f.Little, "Little", "little", want)
		check(f.Adjust == 0, "Adjust", f.Adjust, want)
		check(f.Strip == 0, "Strip", f.stripText(), want)
	} else {
		f.validateField(max, check)
	}
	switch {
	case f.Kind != FramingDelimiter:
		check(f.Delimiter == "", "Delimiter", f.Delimiter,
			"is for Config.Framing = delimiter; set that too, or leave it out")
	case f.Delimiter == "":
		check(false, "Kind", f.Kind,
			`needs Config.Framing.Delimiter, the bytes that end a message, such as \r\n or \x00`)
	default:
		check(len(f.Delimiter) <= delimiterMost, "Delimiter", f.Delimiter, "is longer than %d bytes", delimiterMost)
	}
	if bad {
		return
	}
	for _, m := range []struct {
		field   string
		message []byte
	}{{"Beat", f.Beat}, {"Answer", f.Answer}, {"ServerBeat", f.ServerBeat}} {
		switch {
		case m.message == nil:
		case !f.foreign():
			check(false, m.field, string(m.message), "has no meaning in the native protocol, which has beats of "+
				"its own; set Config.Framing too, or leave it out")
		default:
			check(f.carries(m.message, max), m.field, string(m.message), "%s", f.whyNot())
		}
	}
	check(f.Answer == nil || f.Beat != nil || bad, "Answer", string(f.Answer),
		"answers nothing; set Config.Framing.Beat too")
}

func (f *Framing) validateField(max int, check func(ok bool, field string, value any, want string, args ...any)) {
	check(slices.Contains([]int{0, 1, 2, 3, 4, 8}, f.Width), "Width", f.Width, "must be 1, 2, 3, 4 or 8 bytes")
	check(f.Offset >= 0 && f.Offset < max-8, "Offset", f.Offset, "must lie between 0 and %d, "+
		"so that Config.MaxFrame = %d has room for the field", max-9, max)
	check(f.Adjust >= -max && f.Adjust <= max, "Adjust", f.Adjust,
		"must lie between %d and Config.MaxFrame = %d", -max, max)
	check(f.Strip >= KeepHeader && f.Strip < max, "Strip", f.stripText(),
		"must lie between 0 and Config.MaxFrame = %d", max)
}

// stripText is f.Strip as Netty counts it.
func (f *Framing) stripText() int {
	if f.Strip == KeepHeader {
		return 0
	}
	return f.Strip
}

// carries reports whether p is a message of f.
func (f *Framing) carries(p []byte, max int) bool {
	c, _ := f.cutter(max)
	frame, ok := c.Encode(nil, p)
	if !ok {
		return false
	}
	got, _, used, err := c.Next(frame)
	return err == nil && used == len(frame) && string(got) == string(p)
}

// whyNot says why no frame carries a message.
func (f *Framing) whyNot() string {
	switch f.Kind {
	case FramingLengthField:
		if g := f.withDefaults(); g.Strip < g.Offset+g.Width {
			return "is not a message of this framing; with Config.Framing.Strip = " + fmt.Sprint(g.Strip) +
				" it begins with the header, and its length must be right"
		}
		return "is too long or too short for a message of this framing"
	case FramingLines:
		return "is not a line; write it without the end of the line"
	case FramingDelimiter:
		return "has the delimiter in it; write it without"
	}
	return "is too long for a message of this framing"
}
