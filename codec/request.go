package codec

import "encoding/binary"

// AppendReq appends a REQ frame: a request that RES answers with the same id.
//
//	u32 id | u8 n | n bytes of subject | payload
//
// The subject may be empty and hold any bytes. subject and payload are copied. It
// panics if the subject is longer than MaxSubject or the frame than MaxFrameLimit.
func AppendReq(dst []byte, id uint32, subject string, payload []byte) []byte {
	if len(subject) > MaxSubject {
		panic("codec: AppendReq: subject longer than MaxSubject")
	}
	dst = appendHeader(dst, OpReq, 4+1+len(subject)+len(payload))
	dst = binary.BigEndian.AppendUint32(dst, id)
	dst = append(dst, byte(len(subject)))
	dst = append(dst, subject...)
	return append(dst, payload...)
}

// ParseReq returns the content of a REQ. subject and body are parts of payload.
//
// An error is an ErrBody: the payload ends before the subject does.
func ParseReq(payload []byte) (id uint32, subject, body []byte, err error) {
	if len(payload) < 4 {
		return 0, nil, nil, bodyError(OpReq, "id is %d of 4 bytes", len(payload))
	}
	subject, body, err = cutName(OpReq, payload[4:])
	if err != nil {
		return 0, nil, nil, err
	}
	return binary.BigEndian.Uint32(payload), subject, body, nil
}

// AppendRes appends a RES frame: the answer to the REQ, SUBSCRIBE or UNSUBSCRIBE with
// the same id. Status 0 is success; the handler defines the others. payload is
// copied. It panics if the frame is longer than MaxFrameLimit.
//
//	u32 id | u8 status | payload
func AppendRes(dst []byte, id uint32, status uint8, payload []byte) []byte {
	dst = appendHeader(dst, OpRes, 4+1+len(payload))
	dst = binary.BigEndian.AppendUint32(dst, id)
	dst = append(dst, status)
	return append(dst, payload...)
}

// ParseRes returns the content of a RES. body is a part of payload.
//
// An error is an ErrBody: the payload is shorter than 5 bytes.
func ParseRes(payload []byte) (id uint32, status uint8, body []byte, err error) {
	if len(payload) < 5 {
		return 0, 0, nil, bodyError(OpRes, "id and status are %d of 5 bytes", len(payload))
	}
	return binary.BigEndian.Uint32(payload), payload[4], payload[5:len(payload):len(payload)], nil
}

// AppendSubscribe appends a SUBSCRIBE frame: the session joins a channel; RES with the
// same id answers. The name may hold any bytes and is the rest of the frame. It panics
// if the name is longer than MaxSubject, which PUBLISH could not address.
//
//	u32 id | channel name
func AppendSubscribe(dst []byte, id uint32, channel string) []byte {
	return appendMembership(dst, OpSubscribe, id, channel)
}

// AppendUnsubscribe appends an UNSUBSCRIBE frame: as AppendSubscribe, but to leave the
// channel.
func AppendUnsubscribe(dst []byte, id uint32, channel string) []byte {
	return appendMembership(dst, OpUnsubscribe, id, channel)
}

func appendMembership(dst []byte, op Op, id uint32, channel string) []byte {
	if len(channel) > MaxSubject {
		panic("codec: channel name longer than MaxSubject")
	}
	dst = appendHeader(dst, op, 4+len(channel))
	dst = binary.BigEndian.AppendUint32(dst, id)
	return append(dst, channel...)
}

// ParseSubscribe returns the content of a SUBSCRIBE or UNSUBSCRIBE. channel is a part of
// payload. An empty name is accepted: the gateway refuses it with RES.
//
// An error is an ErrBody: a payload shorter than 4 bytes, or a name longer than
// MaxSubject.
func ParseSubscribe(payload []byte) (id uint32, channel []byte, err error) {
	if len(payload) < 4 {
		return 0, nil, bodyError(OpSubscribe, "id is %d of 4 bytes", len(payload))
	}
	if n := len(payload) - 4; n > MaxSubject {
		return 0, nil, bodyError(OpSubscribe, "channel name is %d bytes, at most %d are allowed", n, MaxSubject)
	}
	return binary.BigEndian.Uint32(payload), payload[4:len(payload):len(payload)], nil
}

// AppendPublish appends a PUBLISH frame: a message to, or from, a channel. channel and
// payload are copied. It panics if the name is longer than MaxSubject or the frame than
// MaxFrameLimit.
//
//	u8 n | n bytes of channel name | payload
func AppendPublish(dst []byte, channel string, payload []byte) []byte {
	if len(channel) > MaxSubject {
		panic("codec: AppendPublish: channel name longer than MaxSubject")
	}
	dst = appendHeader(dst, OpPublish, 1+len(channel)+len(payload))
	dst = append(dst, byte(len(channel)))
	dst = append(dst, channel...)
	return append(dst, payload...)
}

// ParsePublish returns the content of a PUBLISH. channel and body are parts of
// payload. An empty name is accepted, as in ParseSubscribe.
//
// An error is an ErrBody: the payload ends before the name does.
func ParsePublish(payload []byte) (channel, body []byte, err error) {
	return cutName(OpPublish, payload)
}

// cutName cuts b = u8 n | n bytes of name | rest.
func cutName(op Op, b []byte) (name, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, bodyError(op, "length of the name is missing")
	}
	n, b := int(b[0]), b[1:]
	if n > len(b) {
		return nil, nil, bodyError(op, "name is %d of its %d bytes", len(b), n)
	}
	return b[:n:n], b[n:len(b):len(b)], nil
}
