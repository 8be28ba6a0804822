package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/centrifugal/protocol/cfjson"
	"github.com/coder/websocket"
)

// quiet is how long nothing more must come after what was waited for.
const quiet = 250 * time.Millisecond

// A recorder is one connection and its transcript.
type recorder struct {
	server *server
	format string
	text   bytes.Buffer
	names  map[string]string // by what they stand for
	counts map[string]int
	conn   *websocket.Conn
	lines  chan string // what comes; closed with the connection
	client string      // its id
	epoch  string      // the last one seen
	closed bool
	mute   bool // nothing is recorded: another client
}

func (r *recorder) run(sc scenario) {
	defer func() {
		if p := recover(); p != nil {
			log.Printf("%s %s: %v", sc.name, r.format, p)
		}
	}()
	r.dial()
	defer r.conn.CloseNow()
	sc.steps(r)
}

func (r *recorder) dial() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	url := "ws://" + r.server.addr + "/connection/websocket"
	if r.format == "protobuf" {
		url += "?cf_protocol=protobuf"
	}
	c, _, err := websocket.Dial(ctx, url, nil)
	must(err)
	c.SetReadLimit(1 << 20)
	r.conn, r.lines, r.closed = c, make(chan string, 1000), false
	go r.read(c, r.lines)
}

func (r *recorder) read(c *websocket.Conn, lines chan string) {
	defer close(lines)
	for {
		_, b, err := c.Read(context.Background())
		var ce websocket.CloseError
		if errors.As(err, &ce) {
			lines <- fmt.Sprintf("x %d %s", ce.Code, ce.Reason)
		}
		if err != nil {
			return
		}
		if r.format == "json" {
			for line := range strings.SplitSeq(string(b), "\n") {
				lines <- "< " + line
			}
			continue
		}
		for len(b) > 0 {
			size, n := binary.Uvarint(b)
			var reply protocol.Reply
			must(reply.UnmarshalCF(b[n : n+int(size)]))
			lines <- "< " + render(&reply)
			b = b[n+int(size):]
		}
	}
}

// render shows a reply as JSON. Data that is no JSON, as a delta, is in base64.
func render(r *protocol.Reply) string {
	show := func(data *protocol.Raw) {
		if !cfjson.ValidRaw(*data) {
			*data = protocol.Raw(`"base64:` + base64.StdEncoding.EncodeToString(*data) + `"`)
		}
	}
	if r.Push != nil && r.Push.Pub != nil {
		show(&r.Push.Pub.Data)
	}
	if r.Rpc != nil {
		show(&r.Rpc.Data)
	}
	return string(r.AppendJSON(nil))
}

var (
	idOf    = regexp.MustCompile(`^(?:\{"id":(\d+)|< \{"id":(\d+))`)
	uuid    = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	epochs  = regexp.MustCompile(`"epoch":"(\w+)"`)
	tokens  = regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]+`)
	ttl     = regexp.MustCompile(`"ttl":35\d\d`)
	seconds = regexp.MustCompile(`"expire_at":\d{10}`)
	ownUUID = regexp.MustCompile(`"connect":\{"client":"([^"]+)"`)
)

// write adds a line to the transcript.
func (r *recorder) write(line string) {
	if m := ownUUID.FindStringSubmatch(line); m != nil {
		r.client = m[1]
	}
	name := func(kind string) func(string) string {
		return func(v string) string {
			if r.names[v] == "" {
				if r.counts == nil {
					r.counts = map[string]int{}
				}
				r.counts[kind]++
				r.names[v] = fmt.Sprintf("%s-%d", kind, r.counts[kind])
			}
			return r.names[v]
		}
	}
	line = uuid.ReplaceAllStringFunc(line, name("client"))
	line = tokens.ReplaceAllStringFunc(line, name("token"))
	line = epochs.ReplaceAllStringFunc(line, func(m string) string {
		v := epochs.FindStringSubmatch(m)[1]
		if v == "wrong" {
			return m
		}
		r.epoch = v
		return `"epoch":"` + name("epoch")(v) + `"`
	})
	line = seconds.ReplaceAllString(line, `"expire_at":1900000000`)
	line = ttl.ReplaceAllString(line, `"ttl":3600`)
	if !r.mute {
		fmt.Fprintln(&r.text, line)
	}
}

func (r *recorder) note(format string, args ...any) { r.write("# " + fmt.Sprintf(format, args...)) }

// send sends commands in one frame, and records what comes until each has its
// answer and it is quiet. EPOCH and CLIENT in them stand for those last seen.
func (r *recorder) send(commands ...string) {
	var frame []byte
	waits := map[string]bool{}
	mark := "> "
	for i, c := range commands {
		c = strings.NewReplacer("EPOCH", r.epoch, "CLIENT", r.client).Replace(c)
		r.write(mark + c)
		mark = "+ "
		if m := idOf.FindStringSubmatch(c); m != nil && m[1] != "0" {
			waits[m[1]] = true
		}
		if r.format == "json" {
			if i > 0 {
				frame = append(frame, '\n')
			}
			frame = append(frame, c...)
			continue
		}
		var cmd protocol.Command
		must(cfjson.Unmarshal([]byte(c), &cmd, 0))
		b, err := cmd.MarshalCF()
		must(err)
		frame = append(binary.AppendUvarint(frame, uint64(len(b))), b...)
	}
	r.frame(frame)
	r.receive(waits)
}

// raw sends a frame as it is.
func (r *recorder) raw(frame []byte) {
	r.write("hex " + hex.EncodeToString(frame))
	r.frame(frame)
	r.receive(nil)
}

func (r *recorder) frame(b []byte) {
	kind := websocket.MessageText
	if r.format == "protobuf" {
		kind = websocket.MessageBinary
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	must(r.conn.Write(ctx, kind, b))
}

func (r *recorder) receive(waits map[string]bool) {
	patience := 2 * time.Second
	for !r.closed {
		if len(waits) == 0 {
			patience = quiet
		}
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.closed = true
				return
			}
			r.write(line)
			if m := idOf.FindStringSubmatch(line); m != nil {
				delete(waits, m[2])
			}
		case <-time.After(patience):
			return
		}
	}
}

// await records what comes until something holds text.
func (r *recorder) await(text string) {
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.closed = true
				return
			}
			r.write(line)
			if strings.Contains(line, text) {
				return
			}
		case <-time.After(15 * time.Second):
			panic("no " + text)
		}
	}
}

// end records what comes until the server closes the connection, and whether it
// says why.
func (r *recorder) end() {
	for !r.closed {
		select {
		case line, ok := <-r.lines:
			r.closed = !ok
			if ok {
				r.write(line)
			}
		case <-time.After(20 * time.Second):
			panic("the server closes nothing")
		}
	}
	r.note("the connection has ended")
}

// api calls the server API.
func (r *recorder) api(method string, body string) {
	r.note("api %s %s", method, body)
	body = strings.ReplaceAll(body, "CLIENT", r.client)
	_, err := r.server.api(method, json.RawMessage(body))
	must(err)
	r.receive(nil)
}

// other runs another client, of which the transcript tells nothing else.
func (r *recorder) other(what string, commands ...string) *recorder {
	r.note("another client: %s", what)
	o := &recorder{server: r.server, format: r.format, names: map[string]string{}, mute: true}
	o.dial()
	for _, c := range commands {
		o.send(c)
	}
	r.receive(nil)
	return o
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// token returns a JSON Web Token for the secret of the configurations.
func token(claims string, expires time.Duration) string {
	enc := base64.RawURLEncoding
	if expires != 0 {
		claims = fmt.Sprintf(`%s,"exp":%d}`, strings.TrimSuffix(claims, "}"), time.Now().Add(expires).Unix())
	}
	t := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc.EncodeToString([]byte(claims))
	m := hmac.New(sha256.New, []byte("secret"))
	m.Write([]byte(t))
	return t + "." + enc.EncodeToString(m.Sum(nil))
}

// later returns a time in seconds since 1970.
func later(d time.Duration) string { return strconv.FormatInt(time.Now().Add(d).Unix(), 10) }

func must1[T any](v T, err error) T {
	must(err)
	return v
}
