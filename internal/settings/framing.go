package settings

import (
	"errors"
	"strconv"
	"strings"

	"heartwheel/internal/config"
	"heartwheel/server"
)

// Words of length-order, and of length-strip for all up to the end of the length field.
const (
	bigEndian    = "big"
	littleEndian = "little"
	stripHeader  = "header"
)

var framings = []string{server.FramingNative, server.FramingLengthField, server.FramingVarint, server.FramingLines,
	server.FramingDelimiter}

// framingKeys has the settings for the fields of server.Framing.
var framingKeys = map[string]string{
	"Framing.Kind": "framing", "Framing.Offset": "length-offset", "Framing.Width": "length-width",
	"Framing.Little": "length-order", "Framing.Adjust": "length-adjust", "Framing.Strip": "length-strip",
	"Framing.Delimiter": "delimiter", "Framing.Beat": "beat-message", "Framing.Answer": "answer-message",
	"Framing.ServerBeat": "ping-message",
}

func parseOrder(text string) (little bool, err error) {
	if text != bigEndian && text != littleEndian {
		return false, errors.New("must be big or little")
	}
	return text == littleEndian, nil
}

func formatOrder(little bool) string {
	if little {
		return littleEndian
	}
	return bigEndian
}

func parseStrip(text string) (int, error) {
	n, err := config.ParseNumber(text)
	switch {
	case text == stripHeader:
		return 0, nil
	case err != nil || n < 0:
		return 0, errors.New("must be a number of bytes, 0 for none, or header")
	case n == 0:
		return server.KeepHeader, nil
	}
	return n, nil
}

func formatStrip(n int) string {
	switch n {
	case 0:
		return stripHeader
	case server.KeepHeader:
		return "0"
	}
	return config.FormatNumber(n)
}

// A message is written as text with the escapes of Go; "" is the empty one.
func message(field *[]byte) any { return config.Parsed(field, parseMessage, formatMessage) }

const emptyMessage = `""`

func parseMessage(text string) ([]byte, error) {
	b := []byte{}
	if text == emptyMessage {
		return b, nil
	}
	for text != "" {
		if text[0] != '\\' {
			b, text = append(b, text[0]), text[1:]
			continue
		}
		r, multibyte, rest, err := strconv.UnquoteChar(text, 0)
		if err != nil {
			return nil, errors.New(`has a \ that begins nothing; write \\ for itself, or \n, \x00 and so on`)
		}
		if multibyte {
			b = append(b, string(r)...)
		} else {
			b = append(b, byte(r))
		}
		text = rest
	}
	return b, nil
}

func formatMessage(b []byte) string {
	switch {
	case b == nil:
		return ""
	case len(b) == 0:
		return emptyMessage
	case string(b) == emptyMessage:
		return `\x22\x22`
	}
	quoted := strconv.Quote(string(b))
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func delimiter(field *string) any {
	return config.Parsed(field, func(text string) (string, error) {
		b, err := parseMessage(text)
		return string(b), err
	}, func(s string) string {
		if s == "" {
			return ""
		}
		return formatMessage([]byte(s))
	})
}

// framingRows are the settings of server.Framing, the same words as those of the load
// test.
var framingRows = config.Table[Options]{
	{Key: "framing", Kind: config.Word, Group: framing, Words: framings, Unset: server.FramingNative,
		Related: framing,
		Derived: func(*Options) string { return server.FramingNative },
		InList:  listenersKey,
		Field:   func(o *Options) any { return &o.Framing.Kind },
		Help: "tcp, tls: how clients that do not speak the native protocol tell messages apart; each message is " +
			"DATA"},
	{Key: "length-offset", Kind: config.Number, Group: framing, Unset: "0", Related: framing, Zero: true,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.Framing.Offset },
		Help:   "bytes before the length field"},
	{Key: "length-width", Kind: config.Number, Group: framing, Unset: "4", Related: framing,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.Framing.Width },
		Help:   "bytes of the length field: 1, 2, 3, 4 or 8"},
	{Key: "length-order", Kind: config.Word, Group: framing, Words: []string{bigEndian, littleEndian}, Unset: bigEndian,
		Related: framing,
		InList:  listenersKey,
		Field:   func(o *Options) any { return config.Parsed(&o.Framing.Little, parseOrder, formatOrder) },
		Help:    "byte order of the length field"},
	{Key: "length-adjust", Kind: config.Number, Group: framing, Unset: "0", Related: framing, Signed: true,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.Framing.Adjust },
		Help:   "added to the length for the bytes behind it: -4 if a field of 4 bytes at the front counts itself"},
	{Key: "length-strip", Kind: config.Number, Group: framing, Unset: stripHeader, Related: framing,
		InList: listenersKey,
		Field:  func(o *Options) any { return config.Parsed(&o.Framing.Strip, parseStrip, formatStrip) },
		Help: "bytes at the front of a frame that are not part of its message; header: up to the length " +
			"field's end"},
	{Key: "delimiter", Kind: config.Text, Group: framing, Unset: "none", Related: framing,
		InList: listenersKey,
		Field:  func(o *Options) any { return delimiter(&o.Framing.Delimiter) },
		Help:   `what ends a message, such as '\r\n' or '\x00'`},
	{Key: "beat-message", Kind: config.Text, Group: framing, Unset: "none", Related: framing,
		InList: listenersKey,
		Field:  func(o *Options) any { return message(&o.Framing.Beat) },
		Help:   `message of a client that is a beat, such as PING, '\x01\x00' or '""', the empty one`},
	{Key: "answer-message", Kind: config.Text, Group: framing, Unset: "none", Related: framing,
		InList: listenersKey,
		Field:  func(o *Options) any { return message(&o.Framing.Answer) },
		Help:   "message that answers it"},
	{Key: "ping-message", Kind: config.Text, Group: framing, Unset: "none", Related: framing,
		InList: listenersKey,
		Field:  func(o *Options) any { return message(&o.Framing.ServerBeat) },
		Help:   "message that the server sends as its beat; needed with beats server"},
}
