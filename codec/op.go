package codec

// Op is the kind of a frame: the byte after the header, or OpBeat for the empty
// frame, which has none.
type Op uint8

// The ops. The comments show what follows the op byte.
const (
	// OpBeat stands for the empty frame, 00 00 00 00: a heartbeat, or the
	// answer to one. It is never written as an op byte: 0x00 there is ErrOp.
	OpBeat Op = 0

	OpPing        Op = 0x01 // 0-125 opaque bytes
	OpPong        Op = 0x02 // the PING's bytes
	OpData        Op = 0x03 // application bytes
	OpHello       Op = 0x04 // JSON, see Hello
	OpWelcome     Op = 0x05 // JSON, see Welcome
	OpConfig      Op = 0x06 // JSON, see Config
	OpGoaway      Op = 0x07 // JSON, see Goaway
	OpClose       Op = 0x08 // nothing, or u16 code, UTF-8 reason of at most 123 bytes
	OpError       Op = 0x09 // u16 code, UTF-8 text of at most 123 bytes
	OpReq         Op = 0x0A // u32 id, u8 n, n bytes of subject, payload
	OpRes         Op = 0x0B // u32 id, u8 status (0 = done), payload
	OpSubscribe   Op = 0x0C // u32 id, channel name
	OpUnsubscribe Op = 0x0D // u32 id, channel name
	OpPublish     Op = 0x0E // u8 n, n bytes of channel name, payload
)

// The extension ops, 0x40 to 0x7F. Decode returns them like any other; receivers
// ignore those that they do not know.
const (
	firstExtension Op = 0x40
	lastExtension  Op = 0x7F
)

var opNames = [...]string{
	"beat", "ping", "pong", "data", "hello", "welcome", "config", "goaway",
	"close", "error", "req", "res", "subscribe", "unsubscribe", "publish",
}

// String returns the op in lower case for logs and metric labels: "beat", "ping" …
// "publish", "ext" for the extensions and "invalid" for what Decode refuses.
func (op Op) String() string {
	switch {
	case int(op) < len(opNames):
		return opNames[op]
	case op.Extension():
		return "ext"
	}
	return "invalid"
}

// Extension reports whether op is in 0x40-0x7F. An unknown extension is ignored,
// every other unknown op is an error.
func (op Op) Extension() bool {
	return op >= firstExtension && op <= lastExtension
}
