package websocket

import (
	"bufio"
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	gorilla "github.com/gorilla/websocket"
)

// serverStream has frames of a server: a text in two fragments with a ping between
// them, sizes with every form of length, and a close.
func serverStream() []byte {
	f := NewFraming(0)
	b := append([]byte{0x01, 3}, "κ\xcf"...)
	b = f.Append(b, []byte("ping"), KindPing)
	b = append(b, 0x80, 1, 0x8C) // the other half of ό
	for _, n := range []int{0, 1, 125, 126, 300, 70_000} {
		b = f.Append(b, bytes.Repeat([]byte("x"), n), KindBinary)
	}
	return f.AppendClose(b, 3001, "draining")
}

// However the stream of a server is cut, it gives the same frames.
func TestClientNext(t *testing.T) {
	stream := serverStream()
	whole := NewClientFraming(testLimit)
	want := read(&whole, slices.Clone(stream), func() int { return len(stream) })
	if want.err != nil || want.used != len(stream) || len(want.frames) != 10 {
		t.Fatal(want)
	}
	for cut := range 600 { // every byte of the small frames
		f, first := NewClientFraming(testLimit), true
		got := read(&f, slices.Clone(stream), func() int {
			if first {
				first = false
				return max(1, cut)
			}
			return len(stream)
		})
		if !got.equal(want) {
			t.Fatalf("cut at %d: %v", cut, got)
		}
	}
	f := NewClientFraming(testLimit)
	if _, _, _, _, err := f.Next(frame(0x82, "x")); err != ErrMasked || CloseCode(err) != CloseProtocol {
		t.Errorf("a masked frame: %v", err)
	}
}

// What a client appends is what the server reads.
func TestAppendMasked(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536} {
		content := strings.Repeat("content", n/7+1)[:n]
		if got, want := AppendMasked([]byte("before"), []byte(content), KindBinary, mask), frame(0x82, content); string(
			got[:6]) != "before" || !bytes.Equal(got[6:], want) {
			t.Errorf("%d bytes: %.20x, want %.20x", n, got[6:], want)
		}
	}
	out, f, wire := make([]byte, 0, 1<<10), NewClientFraming(testLimit), NewFraming(0).Append(nil, out16, KindBinary)
	if n := testing.AllocsPerRun(100, func() {
		out = AppendMasked(out[:0], out16, KindBinary, mask)
		_, _, _, _, _ = f.Next(wire)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var out16 = []byte("sixteen bytes...")

func FuzzClientNext(f *testing.F) {
	f.Add(serverStream(), uint64(1), 1<<20)
	f.Add([]byte{0x82, 0x80, 1, 2, 3, 4}, uint64(1), 1)
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, max int) {
		max = int(uint(max) % (1 << 20))
		whole, pieces := NewClientFraming(max), NewClientFraming(max)
		want := read(&whole, slices.Clone(stream), func() int { return len(stream) })
		rng := rand.New(rand.NewPCG(seed, 0))
		if got := read(&pieces, slices.Clone(stream), func() int { return 1 + rng.IntN(9) }); !got.equal(want) {
			t.Errorf("in pieces: %v\nwhole: %v", got, want)
		}
	})
}

// recorded is the response of a server that others wrote, to a request of ours.
func recorded(t *testing.T, request string) []byte {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
	if err != nil {
		t.Fatal(err)
	}
	client, server := net.Pipe()
	defer client.Close()
	w := &hijacked{httptest.NewRecorder(), server}
	u := gorilla.Upgrader{CheckOrigin: func(r *http.Request) bool {
		return r.Header.Get("Origin") == "https://app.example" && r.Host == "h.example:1" && r.URL.Path == "/chat" &&
			r.URL.RawQuery == "a=b"
	}}
	go func() {
		if _, err := u.Upgrade(w, r, nil); err != nil {
			t.Error(err)
			server.Close()
		}
	}()
	b := make([]byte, 4096)
	n, err := client.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func TestClientRequest(t *testing.T) {
	nonce := Nonce{1, 2, 3}
	c := ClientRequest{Host: "h.example:1", Path: "/chat?a=b", Header: []string{"Origin: https://app.example"}}
	response := recorded(t, string(c.Append(nil, nonce)))
	in := append(slices.Clone(response), 0x82, 0)
	for n := range in {
		used, err := ReadResponse(in[:n], nonce)
		if want := len(response); err != nil || used != 0 && n < want || used != want && n >= want {
			t.Fatalf("%d bytes: %d, %v", n, used, err)
		}
	}
	u := newUpgrader(t)
	c = ClientRequest{Host: "h.example", Path: "/chat"}
	r, _, refused := u.Read(c.Append(nil, nonce))
	if r == nil {
		t.Fatal(refused)
	}
	if _, err := ReadResponse(r.AppendAccept(nil), nonce); err != nil {
		t.Error(err)
	}
	var e *RefusedError
	if _, err := ReadResponse(Refuse(503, "at its limit", 0).Bytes, nonce); !errors.As(err, &e) || e.Status != 503 ||
		e.Error() != "websocket: refused with HTTP 503 Service Unavailable: at its limit" {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"\x00\x00\x00\x00":                     "does not answer with HTTP",
		"HTTP/1.1 101 x\r\nUpgrade: x\r\n\r\n": "another protocol",
		strings.Replace(string(response), "Upgrade: websocket", "Upgrade: h2c", 1):                  "another protocol",
		strings.Replace(string(response), "Accept: ", "Accept: x", 1):                               "another request",
		strings.Replace(string(response), "\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n", 1): "extension",
		"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: "+strings.Repeat("x", 100)+"\r\n", 100):          "over 8192",
		"HTTP/1.x\r\n\r\n": "response",
	} {
		if _, err := ReadResponse([]byte(text), nonce); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
	for line, ok := range map[string]bool{
		"Origin: https://a": true, "Authorization: Bearer x": true, "X:": true,
		"host: x": false, "no colon": false, "A B: c": false, "A: b\r\nC: d": false, "": false,
	} {
		if err := CheckHeader(line); (err == nil) != ok {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// A hijacked is a response whose connection the server takes.
type hijacked struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}
