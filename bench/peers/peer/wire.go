package peer

import "encoding/binary"

const (
	// Header is the size of the length in front of every frame, in bytes.
	Header = 4
	// MaxFrame is the largest length that is accepted, in bytes.
	MaxFrame = 64 << 10
)

// Size returns the size of the frame that b begins with, header included. b has
// at least Header bytes. ok is false if the frame is too long.
func Size(b []byte) (size int, ok bool) {
	length := binary.BigEndian.Uint32(b)
	return Header + int(length), length <= MaxFrame
}

// Whole returns how many bytes at the beginning of b are whole frames. ok is
// false if a frame is too long: the connection cannot be used any more.
func Whole(b []byte) (n int, ok bool) {
	for len(b)-n >= Header {
		size, ok := Size(b[n:])
		if !ok {
			return n, false
		}
		if len(b)-n < size {
			break
		}
		n += size
	}
	return n, true
}
