package loadtest

import (
	"fmt"

	"heartwheel/codec"
)

// appendHello appends the HELLO of a connection, by its number in the plan.
func appendHello(dst []byte, p *Plan, number int) []byte {
	h := codec.Hello{V: codec.Version, Token: p.HelloToken, Beats: p.HelloBeats, BeatMS: p.HelloBeat.Milliseconds()}
	if p.HelloDevice != "" {
		h.Device = fmt.Sprintf("%s%d", p.HelloDevice, number)
	}
	return codec.AppendHello(dst, h)
}
