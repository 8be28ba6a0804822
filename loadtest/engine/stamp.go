package engine

import "encoding/binary"

// A stamp travels in PING and in echoed DATA, so that latency needs no state
// for each frame, and the answer proves which frame it answers.
//
//	u64 sent, ns of the loop's clock | u32 lag, µs | u32 number
//
// lag is how much later than due the frame was sent. The numbers of a
// connection begin at firstNumber of it and rise by one.
type stamp struct {
	sent int64
	lag  uint32
	seq  uint32
}

// MinPayload is the smallest payload of an echoed frame.
const MinPayload = 16

func appendStamp(dst []byte, s stamp) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.sent))
	dst = binary.BigEndian.AppendUint32(dst, s.lag)
	return binary.BigEndian.AppendUint32(dst, s.seq)
}

// parseStamp reads the stamp that b begins with. b holds MinPayload bytes or more.
func parseStamp(b []byte) stamp {
	return stamp{
		sent: int64(binary.BigEndian.Uint64(b)),
		lag:  binary.BigEndian.Uint32(b[8:]),
		seq:  binary.BigEndian.Uint32(b[12:]),
	}
}

// firstNumber is far from that of other connections, so that an answer that
// belongs to another one is found.
func firstSeq(connection int) uint32 { return uint32(connection) * 0x9E3779B1 }
