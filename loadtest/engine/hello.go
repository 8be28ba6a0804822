package engine

import (
	"fmt"

	"heartwheel/codec"
)

// AppendHello appends the HELLO of connection number to dst.
func (l *Load) AppendHello(dst []byte, number int) []byte {
	h := codec.Hello{V: codec.Version, Token: l.HelloToken, Beats: l.HelloBeats, BeatMS: l.HelloBeat.Milliseconds()}
	if l.HelloDevice != "" {
		h.Device = fmt.Sprintf("%s%d", l.HelloDevice, number)
	}
	return codec.AppendHello(dst, h)
}
