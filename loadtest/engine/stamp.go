package engine

import "encoding/binary"

// A stamp travels in PING and in echoed DATA. With it, latency needs no state for
// each frame, and an answer shows which frame it answers.
//
//	u64 sent, ns of epoll.Monotonic | u32 lag, µs | u32 sequence number
//
// lag is how much later than due the frame was sent. The sequence of a connection
// begins at its firstSeq.
type stamp struct {
	sent int64
	lag  uint32
	seq  uint32
}

// MinPayload is the smallest payload of an echoed frame: a stamp.
const MinPayload = 16

func appendStamp(dst []byte, s stamp) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.sent))
	dst = binary.BigEndian.AppendUint32(dst, s.lag)
	return binary.BigEndian.AppendUint32(dst, s.seq)
}

// parseStamp reads the stamp at the start of b, which has at least MinPayload bytes.
func parseStamp(b []byte) stamp {
	return stamp{
		sent: int64(binary.BigEndian.Uint64(b)),
		lag:  binary.BigEndian.Uint32(b[8:]),
		seq:  binary.BigEndian.Uint32(b[12:]),
	}
}

// firstSeq is far from that of other connections, so that an answer on the wrong
// connection is found.
func firstSeq(connection int) uint32 { return uint32(connection) * 0x9E3779B1 }
