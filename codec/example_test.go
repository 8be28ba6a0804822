package codec_test

import (
	"fmt"

	"heartwheel/codec"
)

// Bytes arrive in any pieces; complete frames are taken off the front.
func ExampleDecode() {
	stream := codec.AppendHello(nil, codec.Hello{Token: "secret", BeatMS: 15000})
	stream = codec.AppendBeat(stream)
	stream = codec.AppendData(stream, []byte("hello"))

	var buf []byte
	for _, b := range stream { // the worst network: one byte at a time
		buf = append(buf, b)
		f, n, err := codec.Decode(buf, codec.DefaultMaxFrame)
		if err != nil {
			fmt.Println("close with", err.(*codec.Error).Code, err)
			return
		}
		if n == 0 {
			continue // no complete frame yet
		}
		switch f.Op {
		case codec.OpHello:
			h, err := codec.ParseHello(f.Payload)
			fmt.Println(f.Op, h.V, h.BeatMS, err)
		default:
			fmt.Printf("%v %q\n", f.Op, f.Payload)
		}
		buf = buf[n:]
	}
	// Output:
	// hello 1 15000 <nil>
	// beat ""
	// data "hello"
}

// A peer that speaks another protocol is recognised by its first byte.
func ExampleDecode_foreign() {
	_, _, err := codec.Decode([]byte("G"), codec.DefaultMaxFrame)
	e := err.(*codec.Error)
	fmt.Println(uint16(e.Code), e.Code, e.Code.Reconnect())
	fmt.Println(err)
	// Output:
	// 3501 protocol_error false
	// codec: text, such as an HTTP request, where frames are expected: neither HTTP nor WebSocket is spoken here
}
