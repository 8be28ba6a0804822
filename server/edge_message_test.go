package server

import (
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
)

// messages is a protocol whose messages are those of the framing.
type messages struct{ got *[]string }

func (messages) Start(Session)       {}
func (messages) End(Session, Reason) {}
func (m messages) Input(_ Session, p []byte, end bool) (used, need int, err error) {
	if !end {
		return 0, 0, nil
	}
	*m.got = append(*m.got, string(p))
	return len(p), 0, nil
}
func (messages) AppendBeat(dst []byte, _ Session) []byte             { return dst }
func (messages) AppendNotice(dst []byte, _ Session, _ Notice) []byte { return dst }

// piece is a piece of a message, as pieces reads it.
func piece(s string, end bool) []byte {
	head := uint32(len(s))
	if end {
		head |= 1 << 24
	}
	return append(binary.BigEndian.AppendUint32(nil, head), s...)
}

// A protocol learns of the end of a message with all of it, however it arrives, and
// of an empty message too.
func TestEndOfMessage(t *testing.T) {
	wire := slices.Concat(
		piece("ab", false), piece("cd", true),
		piece("", true),
		piece("ef", false), piece("", false), piece("", true),
		piece("g", false), piece("h", false), piece("i", true),
		piece("", false), piece("", true),
		piece("whole", true))
	want := []string{"abcd", "", "ef", "ghi", "", "whole"}
	for step := 1; step <= len(wire); step++ {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{}, nil)
			var got []string
			r.do(func() {
				r.loop.edges = append(r.loop.edges, edge{framing: newPieces, protocol: messages{&got}, layered: true})
				r.edge = 1
			})
			c := r.open()
			for part := range slices.Chunk(wire, step) {
				r.feed(c, part)
			}
			if !slices.Equal(got, want) {
				t.Errorf("in steps of %d: %q, want %q", step, got, want)
			}
			r.check()
		})
	}
}
