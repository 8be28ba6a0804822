// Package codec encodes and decodes the heartwheel protocol, version 1: frames,
// their contents and the close codes. SPEC.md in this directory is the normative
// text.
//
// Everything here is a pure function over byte slices. It is safe for concurrent
// use as far as its arguments are: two goroutines must not append to one slice.
//
// # Reading
//
// Collect the bytes in a buffer and take frames off its front:
//
//	for {
//		f, n, err := codec.Decode(buf, codec.DefaultMaxFrame)
//		if err != nil {
//			return err // an *Error; close with its Code
//		}
//		if n == 0 {
//			break // no complete frame yet: read more
//		}
//		handle(f) // f.Payload is a part of buf
//		buf = buf[n:]
//	}
//
// Then hand f.Payload to the parser of its op: ParseHello, ParseReq and so on.
// DATA, PING and PONG need none: their payload is the content.
//
// # Writing
//
// AppendX appends one complete frame, header included, to a slice and returns it,
// as the built-in append does. If the slice has room, only the JSON frames (HELLO,
// WELCOME, CONFIG, GOAWAY) allocate.
//
// # Lifetimes
//
// A []byte returned by Decode or a parser is a part of the input and valid as long
// as that is. Its capacity is clipped, so appending to it cannot overwrite what
// follows. Strings and structs are copies. AppendX copies its arguments.
//
// # What panics
//
// No input from a peer causes a panic. Encoding beyond a limit that the caller could
// have checked does: more than MaxPing opaque bytes, a subject or channel above
// MaxSubject, a frame above MaxFrameLimit, a payload for OpBeat. There is no valid
// frame to write, and an invalid one would corrupt the stream.
package codec
