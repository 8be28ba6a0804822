package client

import (
	"errors"
	"net"
	"os"
	"time"
)

// writeChunk is how much is given to the kernel at once: within answerTimeout
// some of it has to be taken.
const writeChunk = 16 << 10

// A progressConn is a connection whose Write fails with ErrStalled when nothing
// of it could be written for answerTimeout. It lies below TLS, whose own write
// errors cannot be survived.
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
