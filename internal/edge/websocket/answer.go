package websocket

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// An Answer ends a connection that does not become a WebSocket.
type Answer struct {
	Status int    // of HTTP; 0 if the peer does not speak it
	Why    string // for the log: what is wrong, or what this was
	Bytes  []byte // to send before closing; nil if the peer does not speak HTTP
}

// Refuse returns an Answer with a status and a text of one line. after, if not 0,
// is when the client may come back, in whole seconds.
func Refuse(status int, text string, after time.Duration) *Answer {
	return refuse(status, text, "", after)
}

func refuse(status int, text, header string, after time.Duration) *Answer {
	if after > 0 {
		header += fmt.Sprintf("Retry-After: %d\r\n", (after+time.Second-1)/time.Second)
	}
	text = oneLine(text)
	return answer(status, text, header, text+"\n", false)
}

func refuseMethod(allow string) *Answer {
	return refuse(http.StatusMethodNotAllowed, "method is not allowed here", "Allow: "+allow+"\r\n", 0)
}

// answer returns an Answer; header has further lines of it.
func answer(status int, why, header, body string, head bool) *Answer {
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain; charset=utf-8\r\n"+
		"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
		status, http.StatusText(status), header, len(body))
	if !head {
		b = append(b, body...)
	}
	return &Answer{status, why, b}
}

// oneLine keeps what a peer sent from looking like anything else than text.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7F {
			return ' '
		}
		return c
	}, s)
}

// foreign returns an Answer without bytes for what cannot begin an HTTP request.
func foreign(in []byte) *Answer {
	switch {
	case len(in) == 0 || in[0] >= 'A' && in[0] <= 'Z':
		return nil
	case in[0] == 0x16:
		return &Answer{Why: "a TLS handshake where plain HTTP is expected: connect with ws instead of wss"}
	case in[0] == 0:
		return &Answer{Why: "frames of the native protocol where a WebSocket handshake is expected"}
	}
	return Refuse(http.StatusBadRequest, "not an HTTP request", 0)
}
