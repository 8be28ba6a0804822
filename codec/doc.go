// Package codec is the heartwheel wire, version 1: frames, what they carry and
// the codes connections are closed with. SPEC.md in this directory draws every
// frame byte by byte.
//
// Everything here is a pure function over byte slices: nothing reads, writes,
// sleeps or keeps state, and no method changes its receiver. Safe for concurrent
// use, as long as two goroutines do not append to the same slice and nobody
// writes to a slice that another reads.
//
// # Reading
//
// Put the bytes as they come into a buffer and take frames off its front:
//
//	for {
//		f, n, err := codec.Decode(buf, codec.DefaultMaxFrame)
//		if err != nil {
//			return err // an *Error; its Code is what to close with
//		}
//		if n == 0 {
//			break // not a whole frame yet: read more
//		}
//		handle(f) // f.Payload is a part of buf
//		buf = buf[n:]
//	}
//
// Then hand f.Payload to the parser of its op: ParseHello, ParseReq and so on.
// DATA, PING and PONG have none, their payload is the content.
//
// # Writing
//
// AppendX adds one whole frame, header included, to a slice and returns the
// slice, as the built-in append does. The binary frames allocate nothing when
// the slice has room; the JSON ones (HELLO, WELCOME, CONFIG, GOAWAY), a few
// per connection, do.
//
// # Lifetimes
//
// What Decode and the parsers of binary bodies return as []byte is a part of
// their input, capped so that appending to it cannot overwrite what follows.
// It is valid as long as the input is. Strings and structs are copies. An
// AppendX copies its arguments and keeps none of them.
//
// # What panics
//
// No input from a peer makes anything here panic. A sender that breaks a limit
// which it could have checked (an opaque longer than MaxPing, a subject or
// channel longer than MaxSubject, a frame longer than MaxFrameLimit, bytes for
// OpBeat) panics: there is no correct frame to write, and a wrong one would
// shift every frame after it.
package codec
