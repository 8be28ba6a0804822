package codec

import "encoding/binary"

// AppendReq appends a REQ frame: a request that RES answers with the same id.
//
//	u32 id | u8 n | n bytes of subject | payload
//
// The subject may be empty; it and the payload are copied. The subject is bytes
// to the codec, of any kind. It panics if the subject is longer than MaxSubject
// or the frame than MaxFrameLimit.
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

// AppendRes appends a RES frame: the answer to the REQ, JOIN or LEAVE with the
// same id. Status 0 means done; the others belong to the handler. payload is
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

// AppendJoin appends a JOIN frame: the session asks to be in a group; RES with
// the same id answers. The name is bytes to the codec; the rest of the frame is
// the name, it has no length of its own. It panics if it is longer than
// MaxSubject, which a GROUP frame could not address.
//
//	u32 id | group name
func AppendJoin(dst []byte, id uint32, group string) []byte {
	return appendMembership(dst, OpJoin, id, group)
}

// AppendLeave appends a LEAVE frame: as AppendJoin, to be out of the group.
func AppendLeave(dst []byte, id uint32, group string) []byte {
	return appendMembership(dst, OpLeave, id, group)
}

func appendMembership(dst []byte, op Op, id uint32, group string) []byte {
	if len(group) > MaxSubject {
		panic("codec: group name longer than MaxSubject")
	}
	dst = appendHeader(dst, op, 4+len(group))
	dst = binary.BigEndian.AppendUint32(dst, id)
	return append(dst, group...)
}

// ParseJoin returns the content of a JOIN or a LEAVE. group is a part of
// payload. An empty name is accepted: the gateway refuses it with RES, which
// keeps the connection.
//
// An error is an ErrBody: a payload shorter than 4 bytes, or a name longer than
// MaxSubject.
func ParseJoin(payload []byte) (id uint32, group []byte, err error) {
	if len(payload) < 4 {
		return 0, nil, bodyError(OpJoin, "id is %d of 4 bytes", len(payload))
	}
	if n := len(payload) - 4; n > MaxSubject {
		return 0, nil, bodyError(OpJoin, "group name is %d bytes, at most %d are allowed", n, MaxSubject)
	}
	return binary.BigEndian.Uint32(payload), payload[4:len(payload):len(payload)], nil
}

// AppendGroup appends a GROUP frame: a message to, or from, all of a group. The
// name and the payload are copied. It panics if the name is longer than
// MaxSubject or the frame than MaxFrameLimit.
//
//	u8 n | n bytes of group name | payload
func AppendGroup(dst []byte, group string, payload []byte) []byte {
	if len(group) > MaxSubject {
		panic("codec: AppendGroup: group name longer than MaxSubject")
	}
	dst = appendHeader(dst, OpGroup, 1+len(group)+len(payload))
	dst = append(dst, byte(len(group)))
	dst = append(dst, group...)
	return append(dst, payload...)
}

// ParseGroup returns the content of a GROUP. group and body are parts of
// payload. An empty name is accepted, as in ParseJoin.
//
// An error is an ErrBody: the payload ends before the name does.
func ParseGroup(payload []byte) (group, body []byte, err error) {
	return cutName(OpGroup, payload)
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
