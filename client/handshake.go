package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"heartwheel/codec"
)

// The range of intervals accepted from a server.
const (
	minInterval = 10 * time.Millisecond
	maxInterval = 24 * time.Hour
)

// welcomeBuffer has room for a typical WELCOME, in bytes.
const welcomeBuffer = 512

var errNoWelcome = errors.New("the server accepted the connection but sent no WELCOME in time; " +
	"check that it is a heartwheel server and not overloaded")

var errPartialWelcome = errors.New("the server sent only part of its WELCOME; the network path may be bad")

// handshake sends HELLO and waits for WELCOME until ctx ends. rest is what followed
// WELCOME.
func handshake(ctx context.Context, nc net.Conn, h codec.Hello) (w *codec.Welcome, rest []byte, err error) {
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil { // the deadline may be set at any time now
			err = ctx.Err()
		}
	}()
	// A server that refuses may have closed already: what it sent counts first.
	_, wrote := nc.Write(codec.AppendHello(nil, h))
	buf := make([]byte, 0, welcomeBuffer)
	var end error
	for {
		w, n, err := welcome(buf)
		if w != nil || err != nil {
			return w, buf[n:], err
		}
		switch {
		case end == nil:
		case errors.Is(end, os.ErrDeadlineExceeded) && len(buf) == 0:
			return nil, nil, errNoWelcome
		case len(buf) > 0 && (errors.Is(end, os.ErrDeadlineExceeded) || errors.Is(end, io.EOF)):
			return nil, nil, errPartialWelcome
		case errors.Is(end, io.EOF) && wrote != nil:
			return nil, nil, wrote
		default:
			return nil, nil, end
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		n, end = nc.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
	}
}

// welcome decodes a WELCOME at the front of b, n bytes long. w is nil without an
// error while b is too short.
func welcome(b []byte) (w *codec.Welcome, n int, err error) {
	f, n, err := codec.Decode(b, 1+codec.MaxControl)
	if err != nil {
		return nil, 0, &handshakeError{text: foreign(b), err: err}
	}
	if n == 0 {
		return nil, 0, nil
	}
	switch f.Op {
	case codec.OpWelcome:
		got, err := codec.ParseWelcome(f.Payload)
		if err == nil {
			err = checkWelcome(&got)
		}
		if err != nil {
			return nil, 0, &handshakeError{text: "the server's WELCOME is invalid: " + err.Error(), err: err}
		}
		return &got, n, nil
	case codec.OpClose:
		code, reason, err := codec.ParseClose(f.Payload)
		if err != nil {
			return nil, 0, &handshakeError{text: err.Error(), err: err}
		}
		return nil, 0, &CodeError{code, reason}
	case codec.OpGoaway:
		g, err := codec.ParseGoaway(f.Payload)
		if err != nil {
			return nil, 0, &handshakeError{text: err.Error(), err: err}
		}
		return nil, 0, &goawayError{CodeError{g.Code, g.Reason}, g}
	}
	return nil, 0, &handshakeError{text: fmt.Sprintf("the server answered HELLO with %s in place of WELCOME", f.Op)}
}

// A goawayError is a GOAWAY in place of WELCOME.
type goawayError struct {
	CodeError
	goaway codec.Goaway
}

func (e *goawayError) Unwrap() error { return &e.CodeError }

// foreign describes the protocol that b seems to be.
func foreign(b []byte) string {
	switch {
	case b[0] == 0x15 || b[0] == 0x16:
		return "the server speaks TLS; use tls://"
	case len(b) >= 4 && string(b[:4]) == "HTTP":
		return "a web server answers there; check the port"
	case b[0] != 0:
		return "the server speaks another protocol; check the port"
	}
	return "the server's first frame is not one of this protocol; check the port"
}

// checkWelcome reports whether the server's values are usable.
func checkWelcome(w *codec.Welcome) error {
	if w.V != codec.Version {
		return fmt.Errorf("v is %d, this client speaks version %d", w.V, codec.Version)
	}
	if w.MaxFrame != 0 && w.MaxFrame < 1+codec.MaxPing {
		return fmt.Errorf("max_frame is %d: not even a PING fits", w.MaxFrame)
	}
	return checkTimes(w.BeatMS, w.TimeoutMS)
}

// checkTimes reports whether a beat interval and idle timeout are usable.
func checkTimes(beatMS, timeoutMS int64) error {
	const most = int64(maxInterval / time.Millisecond)
	if beatMS < int64(minInterval/time.Millisecond) || beatMS > most {
		return fmt.Errorf("beat_ms is %d: it must lie between %d and %d", beatMS, int64(minInterval/time.Millisecond),
			most)
	}
	if timeoutMS*2 < beatMS*3 || timeoutMS > 10*most {
		return fmt.Errorf("timeout_ms is %d with beat_ms %d: it must be at least 1.5 times as much", timeoutMS, beatMS)
	}
	return nil
}
