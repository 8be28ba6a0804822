package websocket

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// A Nonce is what a client's Sec-WebSocket-Key is made of: another one for each
// connection.
type Nonce [16]byte

// A ClientRequest is the request with which a client begins. Safe for concurrent use.
type ClientRequest struct {
	Host   string   // of the Host header: HOST:PORT, or HOST with the scheme's own port
	Path   string   // with a query, if there is one
	Header []string // further lines, such as "Origin: https://example.com"; see CheckHeader
}

// ownHeaders are those that Append writes itself, or that would change what comes
// after it.
var ownHeaders = []string{"Host", "Upgrade", "Connection", "Sec-Websocket-Key", "Sec-Websocket-Version",
	"Sec-Websocket-Extensions", "Content-Length", "Transfer-Encoding"}

// CheckHeader returns an error if line cannot be one of ClientRequest.Header. It
// continues a sentence that begins with the line.
func CheckHeader(line string) error {
	name, value, found := strings.Cut(line, ":")
	if !found || !isToken(name) || oneLine(value) != value {
		return fmt.Errorf("is not a header; write NAME: VALUE, such as 'Origin: https://example.com'")
	}
	for _, own := range ownHeaders {
		if strings.EqualFold(name, own) {
			return fmt.Errorf("is a header that the request has already, or must not have; leave it out")
		}
	}
	return nil
}

// Append appends the request.
func (r *ClientRequest) Append(dst []byte, n Nonce) []byte {
	dst = append(append(append(dst, "GET "...), r.Path...), " HTTP/1.1\r\nHost: "...)
	dst = append(append(dst, r.Host...), "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	dst = append(base64.StdEncoding.AppendEncode(dst, n[:]), "\r\n"...)
	for _, line := range r.Header {
		dst = append(append(dst, line...), "\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// A RefusedError is the response of a server that does not accept the connection.
type RefusedError struct {
	Status int    // of HTTP
	Text   string // the first line of its body, as far as it had come
}

func (e *RefusedError) Error() string {
	text := fmt.Sprintf("websocket: refused with HTTP %d %s", e.Status, http.StatusText(e.Status))
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

// ReadResponse reads the response to the request with n that in begins with, and
// returns how many bytes it took: what follows are frames. It took 0 if it is not
// whole. A header over DefaultMaxHeaderBytes is an error, and so is what is not the
// response to that request; of a server that refuses it is a *RefusedError.
//
// It keeps no part of in.
func ReadResponse(in []byte, n Nonce) (used int, err error) {
	const end = "\r\n\r\n"
	head := in[:min(len(in), DefaultMaxHeaderBytes)]
	const proto = "HTTP/1."
	if k := min(len(head), len(proto)); string(head[:k]) != proto[:k] {
		return 0, fmt.Errorf("websocket: the server does not answer with HTTP, but % x", head[:min(len(head), 16)])
	}
	at := bytes.Index(head, []byte(end))
	switch {
	case at < 0 && len(in) >= DefaultMaxHeaderBytes:
		return 0, fmt.Errorf("websocket: response header over %d bytes", DefaultMaxHeaderBytes)
	case at < 0:
		return 0, nil
	}
	used = at + len(end)
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(in)), nil)
	if err != nil {
		return 0, fmt.Errorf("websocket: response: %w", err)
	}
	defer r.Body.Close()
	sum := sha1.Sum([]byte(base64.StdEncoding.EncodeToString(n[:]) + magic))
	switch {
	case r.StatusCode != http.StatusSwitchingProtocols:
		body, _ := io.ReadAll(io.LimitReader(r.Body, 200))
		line, _, _ := strings.Cut(string(body), "\n")
		return 0, &RefusedError{r.StatusCode, strings.TrimSpace(oneLine(strings.ToValidUTF8(line, "")))}
	case !hasToken(r.Header["Upgrade"], "websocket"), !hasToken(r.Header["Connection"], "upgrade"):
		return 0, fmt.Errorf("websocket: the server switches to another protocol: Upgrade: %.100q", r.Header["Upgrade"])
	case r.Header.Get("Sec-Websocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]):
		return 0, fmt.Errorf("websocket: Sec-WebSocket-Accept is that of another request")
	case len(r.Header["Sec-Websocket-Extensions"]) > 0:
		return 0, fmt.Errorf("websocket: the server uses an extension that was not asked for: %.100q",
			r.Header["Sec-Websocket-Extensions"])
	}
	return used, nil
}
