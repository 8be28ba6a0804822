// Package lengthfield has the framings of fleets that cannot change: a length field
// anywhere in a header, protobuf's varint, and frames that end with a delimiter.
//
// Of this module it imports codec.
package lengthfield

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"heartwheel/codec"
)

// The errors of Next. It returns these values themselves, so that refusing a frame
// allocates nothing.
var (
	ErrTooLarge = &codec.Error{Code: codec.CodeFrameTooLarge, Text: "lengthfield: frame is larger than the limit"}
	ErrLength   = &codec.Error{Code: codec.CodeProtocolError, Text: "lengthfield: length is shorter than the header"}
	ErrVarint   = &codec.Error{Code: codec.CodeProtocolError, Text: "lengthfield: length is no varint of 32 bits"}
)

// A Field is a length field in the header of every frame.
//
//	Offset     Width    Adjust           as long as the field says
//	+---------+--------+----------------+--------------------------+
//	| header  | length | rest of header | content                  |
//	+---------+--------+----------------+--------------------------+
//
// A frame has Offset + Width + length + Adjust bytes. Safe for concurrent use.
type Field struct {
	Offset int  // bytes before the field
	Width  int  // 1, 2, 3, 4 or 8 bytes
	Little bool // little-endian
	// Adjust is added to the field's value for the number of bytes after the
	// field: -(Offset+Width) if the value counts the whole frame, the size of a
	// header after the field if it does not count that.
	Adjust int
	Strip  int // bytes at the front of a frame that are not handed on
	Max    int // longest frame, in bytes, header included
}

// Validate returns everything that is wrong with f.
func (f *Field) Validate() error {
	var wrong []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf("lengthfield: "+format, args...))
		}
	}
	switch f.Width {
	case 1, 2, 3, 4, 8:
	default:
		check(false, "width %d is none of 1, 2, 3, 4, 8", f.Width)
	}
	const most = 1 << 20 // of a header; keeps sums from overflowing
	check(f.Offset >= 0 && f.Offset <= most, "offset %d is not from 0 to %d", f.Offset, most)
	check(f.Strip >= 0 && f.Strip <= most, "strip %d is not from 0 to %d", f.Strip, most)
	check(f.Adjust >= -most && f.Adjust <= most, "adjust %d is not from %d to %d", f.Adjust, -most, most)
	check(f.Max > f.Offset+f.Width && f.Max <= math.MaxInt32, "max %d does not hold a frame", f.Max)
	return errors.Join(wrong...)
}

// Next returns the first frame in in without its first Strip bytes, and how many
// bytes it took: 0 if it is not whole. Every frame is a message, so end is true. p is
// a part of in. A frame above Max is refused at its length field.
func (f *Field) Next(in []byte) (p []byte, end bool, used int, err error) {
	size, err := f.size(in)
	if err != nil || size == 0 || len(in) < size {
		return nil, false, 0, err
	}
	return in[f.Strip:size:size], true, size, nil
}

// size returns the size of the frame that in begins with; 0 if it is not known yet.
func (f *Field) size(in []byte) (int, error) {
	after := f.Offset + f.Width
	if len(in) < after {
		return 0, nil
	}
	var length uint64
	for i, b := range in[f.Offset:after] {
		if f.Little {
			length |= uint64(b) << (8 * i)
		} else {
			length = length<<8 | uint64(b)
		}
	}
	if length > math.MaxInt32 {
		return 0, ErrTooLarge
	}
	size := int64(after) + int64(length) + int64(f.Adjust)
	switch {
	case size < int64(max(after, f.Strip)):
		return 0, ErrLength
	case size > int64(f.Max):
		return 0, ErrTooLarge
	}
	return int(size), nil
}

// Need returns how many bytes in must have for Next to return its first frame, or to
// know that.
func (f *Field) Need(in []byte) int {
	if size, err := f.size(in); err != nil || size > 0 {
		return size
	}
	return f.Offset + f.Width
}

// Append appends a frame with the message, which is all that comes after the length
// field; bytes before it are 0. It panics for a message that no frame can carry.
func (f *Field) Append(dst, message []byte) []byte {
	g := *f
	g.Strip = f.Offset + f.Width
	dst, ok := g.Encode(dst, message)
	if !ok {
		panic("lengthfield: no frame can carry that")
	}
	return dst
}

// Encode appends the frame for which Next returns p: the Strip bytes that are not in
// p are 0, and the length field is filled in, also where it is a part of p. ok is
// false, and dst as it was, if no frame can carry p.
//
//	Strip                                          what p is
//	0                  header and content, +--------+--------+---------+
//	                   as on the wire      | header | length | content |
//	                                       +--------+--------+---------+
//	Offset + Width     what comes after                      +---------+
//	                   the length field                      | content |
//	                                                         +---------+
func (f *Field) Encode(dst, p []byte) (frame []byte, ok bool) {
	after, size, at := f.Offset+f.Width, f.Strip+len(p), len(dst)
	length := int64(size-after) - int64(f.Adjust)
	if size < after || size > f.Max || length < 0 || length > math.MaxInt32 || length>>(8*f.Width) != 0 {
		return dst, false
	}
	for range f.Strip {
		dst = append(dst, 0)
	}
	dst = append(dst, p...)
	field := dst[at+f.Offset : at+after]
	for i := range field {
		shift := 8 * i
		if !f.Little {
			shift = 8 * (f.Width - 1 - i)
		}
		field[i] = byte(length >> shift)
	}
	return dst, true
}

// Varint is a length as protobuf's writeDelimitedTo has it, and the content.
type Varint struct{ Max int } // bytes of content

// Next is as that of Field. A length over five bytes or 32 bits is refused.
func (f *Varint) Next(in []byte) (p []byte, end bool, used int, err error) {
	length, n := binary.Uvarint(in[:min(len(in), binary.MaxVarintLen32)])
	switch {
	case n == 0 && len(in) < binary.MaxVarintLen32:
		return nil, false, 0, nil
	case n <= 0 || length > math.MaxUint32:
		return nil, false, 0, ErrVarint
	case length > uint64(max(f.Max, 0)):
		return nil, false, 0, ErrTooLarge
	case uint64(len(in)-n) < length:
		return nil, false, 0, nil
	}
	used = n + int(length)
	return in[n:used:used], true, used, nil
}

// Need is as that of Field, for what Next has not refused.
func (f *Varint) Need(in []byte) int {
	if length, n := binary.Uvarint(in); n > 0 {
		return n + int(length)
	}
	return len(in) + 1
}

// Encode is as that of Field.
func (f *Varint) Encode(dst, p []byte) (frame []byte, ok bool) {
	if len(p) > f.Max {
		return dst, false
	}
	return f.Append(dst, p), true
}

// Append appends a frame with the message.
func (f *Varint) Append(dst, message []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(message))), message...)
}

// Delimited is frames that end with a delimiter, such as a line with "\n". It has
// state: one for each connection. Loop only.
type Delimited struct {
	end     []byte
	max     int
	trimCR  bool
	scanned int // bytes of the frame at hand that have no delimiter
}

// Delimiter returns frames that end with end, which must not be empty, and have up
// to max bytes before it.
func Delimiter(end string, max int) *Delimited {
	if end == "" {
		panic("lengthfield: empty delimiter")
	}
	return &Delimited{end: []byte(end), max: max}
}

// Lines returns lines that end with LF or CR LF and have up to max bytes before LF.
func Lines(max int) *Delimited {
	return &Delimited{end: []byte("\n"), max: max, trimCR: true}
}

// Next returns the first frame in in without its delimiter. in begins with what an
// earlier call left. Otherwise it is as that of Field; a frame is refused as soon
// as more than its limit came without delimiter.
func (f *Delimited) Next(in []byte) (p []byte, end bool, used int, err error) {
	from := max(0, min(f.scanned, len(in))-len(f.end)+1)
	at := bytes.Index(in[from:], f.end)
	if at < 0 {
		if f.scanned = len(in); len(in) >= f.max+len(f.end) {
			return nil, false, 0, ErrTooLarge
		}
		return nil, false, 0, nil
	}
	f.scanned = 0
	if at += from; at > f.max {
		return nil, false, 0, ErrTooLarge
	}
	used = at + len(f.end)
	if f.trimCR && at > 0 && in[at-1] == '\r' {
		at--
	}
	return in[:at:at], true, used, nil
}

// Need returns 0, as the end of a frame is not known before it is there.
func (*Delimited) Need([]byte) int { return 0 }

// Encode is as that of Field. There is no frame for what contains the delimiter, or
// would with it behind: "a|" where that is "||". A line's CR at the end is sent.
func (f *Delimited) Encode(dst, p []byte) (frame []byte, ok bool) {
	at := len(dst)
	frame = f.Append(dst, p)
	if len(p) > f.max || bytes.Index(frame[at:], f.end) < len(p) {
		return frame[:at], false
	}
	return frame, true
}

// Append appends the message, which must not contain the delimiter, and that.
func (f *Delimited) Append(dst, message []byte) []byte {
	return append(append(dst, message...), f.end...)
}
