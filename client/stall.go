package client

import (
	"errors"
	"net"
	"os"
	"time"
)

// writeChunk is the size of one write: the kernel must take some of it within
// answerTimeout.
const writeChunk = 16 << 10

// A progressConn is a connection whose Write fails with ErrStalled when no byte
// could be written for answerTimeout. It lies below TLS, whose write errors are
// final even if they are timeouts.
type progressConn struct{ net.Conn }

func (p progressConn) Write(b []byte) (written int, err error) {
	for written < len(b) {
		if err := p.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
			return written, err
		}
		n, err := p.Conn.Write(b[written:min(len(b), written+writeChunk)])
		written += n
		if err != nil && !(n > 0 && errors.Is(err, os.ErrDeadlineExceeded)) {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = ErrStalled
			}
			return written, err
		}
	}
	return written, nil
}
