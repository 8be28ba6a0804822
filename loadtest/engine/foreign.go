package engine

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"heartwheel/codec"
	"heartwheel/internal/edge/lengthfield"
)

// The words of Framing.Kind.
const (
	FramingNative    = "native"
	FramingLength    = "length-field"
	FramingVarint    = "varint"
	FramingLines     = "lines"
	FramingDelimiter = "delimiter"
)

// A Framing is how a server that does not speak the native protocol cuts its stream
// into frames, and what its beats are. The zero value is the native protocol.
type Framing struct {
	Kind string

	// Of FramingLength: as the members of lengthfield.Field.
	Offset, Width, Adjust int
	Little                bool
	Strip                 int // −1: all up to the end of the length field

	Delimiter string // of FramingDelimiter

	Beat   string // the content of the frame that is a beat
	Answer string // and of its answer
}

// Native says whether the frames are those of the native protocol.
func (f *Framing) Native() bool { return f.Kind == "" || f.Kind == FramingNative }

// terminated says whether frames end with a delimiter, which their content must not
// contain.
func (f *Framing) terminated() bool { return f.Kind == FramingLines || f.Kind == FramingDelimiter }

// end is the delimiter; empty: there is none.
func (f *Framing) end() string {
	switch f.Kind {
	case FramingLines:
		return "\n"
	case FramingDelimiter:
		return f.Delimiter
	}
	return ""
}

const hexDigits = "0123456789abcdef"

func (f *Framing) field() lengthfield.Field {
	l := lengthfield.Field{Offset: f.Offset, Width: f.Width, Little: f.Little, Adjust: f.Adjust, Strip: f.Strip,
		Max: codec.MaxFrameLimit}
	if l.Strip < 0 {
		l.Strip = l.Offset + l.Width
	}
	return l
}

// longest is the most bytes that a frame can carry.
func (f *Framing) longest() int {
	most := codec.MaxFrameLimit
	if f.Kind == FramingLength {
		most -= f.Offset + f.Width
		if f.Width < 4 {
			most = min(most, 1<<(8*f.Width)-1+f.Adjust)
		}
	}
	return most
}

// carries says whether a frame can carry n bytes.
func (f *Framing) carries(n int) bool {
	return n <= f.longest() && (f.Kind != FramingLength || n >= f.Adjust)
}

// Validate returns everything that is wrong with f for frames with a payload of this
// many bytes; 0: for beats alone.
func (f *Framing) Validate(payload int) error {
	var wrong []error
	if f.Kind == FramingLength {
		l := f.field()
		if wrong = append(wrong, l.Validate()); wrong[0] != nil {
			return wrong[0]
		}
	}
	switch {
	case f.Kind != FramingDelimiter:
	case f.Delimiter == "":
		return errors.New("no delimiter is given")
	case strings.Trim(f.Delimiter, hexDigits) == "":
		wrong = append(wrong, fmt.Errorf("the delimiter %q has nothing but hexadecimal digits, which are content",
			f.Delimiter))
	}
	for _, p := range slices.Compact([]string{f.Beat, f.Answer}) {
		switch {
		case f.terminated() && strings.Contains(p, f.end()):
			wrong = append(wrong, fmt.Errorf("the message %q contains the delimiter", p))
		case !f.carries(len(p)):
			wrong = append(wrong, fmt.Errorf("no frame can carry the message %q", p))
		}
	}
	if f.terminated() {
		payload *= 2
	}
	if payload > 0 && !f.carries(payload) {
		wrong = append(wrong, fmt.Errorf("no frame can carry a payload of %d bytes", payload))
	}
	return errors.Join(wrong...)
}

// foreign reads and writes the frames of a Framing. Not safe for concurrent use.
type foreign struct {
	framing interface {
		Next(in []byte) (p []byte, end bool, used int, err error)
		Append(dst, message []byte) []byte
	}
	lines        *lengthfield.Delimited // framing, if it is one
	beat, answer []byte
	text         []byte
}

// newForeign returns nil for the native protocol.
func newForeign(l *Load) *foreign {
	f := &foreign{beat: []byte(l.Framing.Beat), answer: []byte(l.Framing.Answer)}
	switch l.Framing.Kind {
	case FramingLength:
		field := l.Framing.field()
		f.framing = &field
	case FramingVarint:
		f.framing = &lengthfield.Varint{Max: codec.MaxFrameLimit}
	case FramingLines:
		f.lines = lengthfield.Lines(codec.MaxFrameLimit)
		f.framing = f.lines
	case FramingDelimiter:
		f.lines = lengthfield.Delimiter(l.Framing.Delimiter, codec.MaxFrameLimit)
		f.framing = f.lines
	default:
		return nil
	}
	return f
}

// append appends the frame for a beat or DATA, which is written in hexadecimal where
// a delimiter may be part of it.
func (f *foreign) append(dst []byte, native codec.Frame) []byte {
	message := native.Payload
	switch {
	case native.Op == codec.OpBeat:
		message = f.beat
	case f.lines != nil:
		f.text = hex.AppendEncode(f.text[:0], message)
		message = f.text
	}
	return f.framing.Append(dst, message)
}

// next decodes the first frame: the answer to a beat, or DATA.
func (f *foreign) next(in []byte) (native codec.Frame, n int, err error) {
	var p []byte
	if f.lines != nil {
		// What it keeps between calls is of one connection, and saves no more than
		// looking again at a frame that is not whole.
		lines := *f.lines
		p, _, n, err = lines.Next(in)
	} else {
		p, _, n, err = f.framing.Next(in)
	}
	switch {
	case n == 0 || err != nil:
		return codec.Frame{}, 0, err
	case bytes.Equal(p, f.answer):
		return codec.Frame{Op: codec.OpBeat}, n, nil
	case f.lines != nil:
		var wrong error
		if f.text, wrong = hex.AppendDecode(f.text[:0], p); wrong == nil {
			p = f.text
		}
	}
	return codec.Frame{Op: codec.OpData, Payload: p}, n, nil
}
