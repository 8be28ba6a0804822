package client

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"heartwheel/codec"
)

// A webConn carries the native protocol over a WebSocket: a binary message is a frame
// without its length, an empty one is the empty frame, and a close frame with a code of
// ours is CLOSE. Read returns frames with their length; Write takes whole ones.
//
// One goroutine may read while another writes.
type webConn struct {
	net.Conn      // TLS or TCP; its Write has a time limit of its own
	limit    int  // longest message accepted in fragments, in bytes
	attached bool // the Conn answers pings; before that Read does

	// Owned by the reader.
	raw     readBuffer // frames of the WebSocket
	header  [12]byte   // scratch of ws.ReadHeaderBuffer
	length  [codec.HeaderSize]byte
	ready   []byte // of frames, to be returned before anything else; in length or message
	message []byte // the fragments so far, behind room for their length
	left    int    // content of the data frame at hand that has not been taken
	open    bool   // more fragments of the message follow
	collect bool   // the frame at hand is a fragment
	pinged  bool   // a ping has come, whose content is ping
	ping    []byte // in raw, until the next Read
	end     error  // why nothing comes after ready
	broken  error  // why nothing comes after raw
	code    uint16 // of the close frame that was received; noCode: it had none; 0: none was

	// Owned by the writer.
	mask [4]byte
}

const (
	noCode = 1005

	// controlFrame marks a frame given to Write that is a control frame of the
	// WebSocket; the length of any other begins with 0. Its op is in the low bits.
	controlFrame = 0x80

	// controlOp is the bit of an op that control frames have.
	controlOp = 0x08

	// closeReply is the time for the answer to a close frame.
	closeReply = 100 * time.Millisecond
)

// newWebConn returns a WebSocket after its handshake; rest is what followed that. A
// message in fragments may have the size of a WELCOME, or of a frame of maxFrame.
func newWebConn(nc net.Conn, rest []byte, maxFrame int) *webConn {
	return &webConn{Conn: nc, limit: max(maxFrame, 1+codec.MaxControl), raw: newReadBuffer(rest, 0)}
}

// Read reads frames. It returns no bytes and no error when something has arrived of
// which b gets nothing: a part of a message, or a control frame.
func (w *webConn) Read(b []byte) (int, error) {
	w.pinged = false
	n := w.take(b)
	if n == 0 && w.end == nil && w.broken == nil && !w.pinged {
		w.raw.fit(smallBuffer)
		var got int
		got, w.broken = w.Conn.Read(w.raw.free())
		w.raw.added(got)
		n = w.take(b)
	}
	switch {
	case n > 0 || w.pinged:
		return n, nil
	case w.end != nil:
		return 0, w.end
	}
	return 0, w.broken
}

// take fills b with what is in raw.
func (w *webConn) take(b []byte) (n int) {
	for n < len(b) {
		switch {
		case len(w.ready) > 0:
			m := copy(b[n:], w.ready)
			w.ready = w.ready[m:]
			n += m
			if len(w.ready) == 0 && !w.open && cap(w.message) > keepBuffer {
				w.message = nil
			}
		case w.end != nil:
			return n
		case w.left > 0:
			part := w.raw.bytes()
			if part = part[:min(len(part), w.left)]; len(part) == 0 {
				return n
			}
			if w.collect {
				w.message = append(w.message, part...)
			} else {
				part = part[:copy(b[n:], part)]
				n += len(part)
			}
			w.raw.used(len(part))
			w.left -= len(part)
			w.finish()
		default:
			more, err := w.next()
			if err != nil {
				w.end = err
			} else if !more {
				return n
			}
		}
	}
	return n
}

// finish makes a frame of the fragments once the last is whole.
func (w *webConn) finish() {
	if w.left > 0 || w.open || !w.collect {
		return
	}
	w.collect = false
	binary.BigEndian.PutUint32(w.message, uint32(len(w.message)-codec.HeaderSize))
	w.ready = w.message
}

// next reads the header of the frame that raw begins with, and all of a control frame.
// more is false while raw has too little of it.
func (w *webConn) next() (more bool, err error) {
	have := w.raw.bytes()
	size, content := 2, 0
	if len(have) >= 2 {
		switch length := have[1] & 0x7F; {
		case length == 127:
			size += 8
		case length == 126:
			size += 2
		case have[0]&controlOp != 0:
			content = int(length)
		}
		if have[1]&0x80 != 0 {
			return false, &webError{ws.ErrProtocolMaskUnexpected}
		}
	}
	if len(have) < size+content {
		return false, nil
	}
	h, err := ws.ReadHeaderBuffer(&w.raw, w.header[:])
	state := ws.StateClientSide
	if w.open {
		state = state.Set(ws.StateFragmented)
	}
	if err == nil {
		err = ws.CheckHeader(h, state)
	}
	switch {
	case err != nil:
		return false, &webError{err}
	case ws.HeaderSize(h) != size:
		return false, &webError{errors.New("length is not in its shortest form")}
	case h.OpCode == ws.OpText:
		return false, &webError{errors.New("text message, this protocol has binary ones")}
	case h.OpCode.IsControl():
		w.raw.used(content)
		return true, w.control(h.OpCode, have[size:size+content])
	case h.Length > codec.MaxFrameLimit:
		return false, errTooLarge
	}
	w.left = int(h.Length)
	if h.Fin && h.OpCode == ws.OpBinary { // its content needs no copy
		binary.BigEndian.PutUint32(w.length[:], uint32(w.left))
		w.ready = w.length[:]
		return true, nil
	}
	if h.OpCode == ws.OpBinary {
		w.message = append(w.message[:0], make([]byte, codec.HeaderSize)...)
	}
	if len(w.message)-codec.HeaderSize+w.left > w.limit {
		return false, errTooLarge
	}
	w.open, w.collect = !h.Fin, true
	w.finish()
	return true, nil
}

var errTooLarge = fmt.Errorf("the server sent an invalid frame: %w", codec.ErrFrameTooLarge)

// control handles a control frame. content is in raw.
func (w *webConn) control(op ws.OpCode, content []byte) error {
	switch op {
	case ws.OpPing:
		w.pinged, w.ping = true, content
		if !w.attached {
			_, err := w.Write(appendPong(nil, content))
			return err
		}
	case ws.OpClose:
		return w.closed(content)
	}
	return nil
}

// closed makes a CLOSE of a close frame with a code of ours, and an error of any other.
func (w *webConn) closed(content []byte) error {
	w.code = noCode
	if len(content) == 0 {
		return io.EOF
	}
	if len(content) == 1 {
		return &webError{errors.New("close frame of one byte")}
	}
	code, reason := binary.BigEndian.Uint16(content), content[2:]
	switch {
	case code < 1000 || code > 4999 || code >= 1004 && code <= 1006 || code >= 1015 && code < 3000:
		return &webError{fmt.Errorf("close frame with the code %d", code)}
	case !utf8.Valid(reason):
		return &webError{ws.ErrProtocolInvalidUTF8}
	}
	w.code = code
	if code < 3000 {
		return &webCloseError{code, string(reason)}
	}
	w.message = codec.AppendClose(w.message[:0], codec.Code(code), string(reason))
	w.ready = w.message
	return io.EOF
}

// appendPong appends what Write sends as a pong.
func appendPong(dst, content []byte) []byte {
	dst = append(dst, controlFrame|byte(ws.OpPong), 0, 0, byte(len(content)))
	return append(dst, content...)
}

// Write writes whole frames, and what appendPong appends.
func (w *webConn) Write(b []byte) (int, error) {
	out := largeBuffers.Get().(*[largeBuffer]byte)
	defer largeBuffers.Put(out)
	written, n := 0, 0 // how much of b is written; how much of out waits
	flush := func() error {
		_, err := w.Conn.Write(out[:n])
		n = 0
		return err
	}
	for rest := b; len(rest) > 0; {
		h := ws.Header{Fin: true, Masked: true, OpCode: ws.OpBinary}
		head := binary.BigEndian.Uint32(rest)
		content := rest[codec.HeaderSize:][:head&codec.MaxFrameLimit]
		rest = rest[codec.HeaderSize+len(content):]
		switch {
		case head > codec.MaxFrameLimit:
			h.OpCode = ws.OpCode(head >> 24 &^ controlFrame)
		case len(content) > 0 && codec.Op(content[0]) == codec.OpClose:
			h.OpCode, content = ws.OpClose, content[1:]
		}
		h.Length = int64(len(content))
		if _, err := rand.Read(w.mask[:]); err != nil {
			return written, err
		}
		h.Mask = w.mask
		if len(out)-n < ws.MaxHeaderSize {
			if err := flush(); err != nil {
				return written, err
			}
		}
		if err := ws.WriteHeaderBuffer(io.Discard, h, out[n:n+ws.MaxHeaderSize]); err != nil {
			return written, err
		}
		n += ws.HeaderSize(h)
		for at := 0; at < len(content); {
			m := copy(out[n:], content[at:])
			ws.Cipher(out[n:n+m], h.Mask, at)
			n += m
			at += m
			if n == len(out) {
				if err := flush(); err != nil {
					return written, err
				}
			}
		}
		written = len(b) - len(rest)
	}
	return written, flush()
}

// answerClose answers the close frame of the server and reports whether there was one.
// Nothing else may be written meanwhile or afterwards. The socket is closed in a moment.
func (w *webConn) answerClose() bool {
	if w.code == 0 {
		return false
	}
	time.AfterFunc(closeReply, func() { _ = bottom(w).Close() }) // if it takes nothing any more
	content := []byte{0, 0, 0, 1, byte(codec.OpClose)}
	if w.code != noCode {
		content[3] = 3
		content = binary.BigEndian.AppendUint16(content, w.code)
	}
	_, err := w.Write(content)
	return err == nil
}

// A webError describes a frame that RFC 6455 does not allow.
type webError struct{ err error }

func (e *webError) Error() string {
	return "the server sent an invalid WebSocket frame: " + e.err.Error()
}
func (e *webError) Unwrap() error { return e.err }

// A webCloseError is a close frame with a code of RFC 6455, such as a proxy sends.
type webCloseError struct {
	code   uint16
	reason string
}

func (e *webCloseError) Error() string {
	text := fmt.Sprintf("the server closed the WebSocket with code %d", e.code)
	if name := closeNames[e.code]; name != "" {
		text += " (" + name + ")"
	}
	if e.reason != "" {
		text += ": " + e.reason
	}
	return text
}

// final reports whether the code blames this client, which would do the same again.
func (e *webCloseError) final() bool {
	switch e.code {
	case 1002, 1003, 1007, 1008, 1009, 1010:
		return true
	}
	return false
}

// closeNames are the meanings of codes: RFC 6455, 7.4.1, and IANA's registry.
var closeNames = map[uint16]string{
	1000: "normal closure", 1001: "going away", 1002: "protocol error", 1003: "unsupported data",
	1007: "invalid data", 1008: "policy violation", 1009: "message too big", 1010: "extension missing",
	1011: "internal error", 1012: "service restart", 1013: "try again later", 1014: "bad gateway",
}
