package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heartwheel/codec"
)

// newHookServer answers for a hook, and returns its URL.
func newHookServer(t testing.TB, h http.HandlerFunc) string {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL + "/connect?key=hidden"
}

func answering(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

// TestHookRequest: what the hook gets, and what becomes of its answer.
func TestHookRequest(t *testing.T) {
	var header http.Header
	var body map[string]any
	expires := time.Now().Add(time.Hour).Unix()
	url := newHookServer(t, func(w http.ResponseWriter, r *http.Request) {
		header, body = r.Header, nil
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Method != http.MethodPost {
			t.Errorf("%s, %v", r.Method, err)
		}
		fmt.Fprintf(w, `{"result":{"user":"56","expire_at":%d,"info":{"name":"x"},"data":[1],"channels":["a","b"],
			"meta":{},"subs":{}},"more":1}`, expires)
	})
	a := newAuthenticator(t, Config{Mode: Hook, HookURL: url, HookHeaders: []string{"cookie", "X-Forwarded-For"}})
	id, err := ask(t, a, Request{
		Token: "t0k", Client: "s1", Transport: "websocket", Protocol: "json", Encoding: "json",
		Name: "js", Version: "1", Data: json.RawMessage(`{"a":1}`), RemoteAddr: netip.MustParseAddr("::ffff:192.0.2.1"),
		Header: http.Header{"Cookie": {"a=b"}, "X-Secret": {"x"}, "X-Forwarded-For": {"203.0.113.9"},
			"Authorization": {"Basic x"}},
	})
	if err != nil || id.User != "56" || id.Expires.Unix() != expires || string(id.Info) != `{"name":"x"}` ||
		string(id.Data) != "[1]" || !slices.Equal(id.Channels, []string{"a", "b"}) {
		t.Errorf("%+v, %v", id, err)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cookie": "a=b", "Authorization": "Bearer t0k",
		"X-Forwarded-For": "192.0.2.1", "X-Secret": "", "Idempotency-Key": "",
	} {
		if got := strings.Join(header[name], ","); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	want := map[string]any{"client": "s1", "transport": "websocket", "protocol": "json", "encoding": "json",
		"name": "js", "version": "1", "data": map[string]any{"a": 1.0}}
	if fmt.Sprint(body) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", body, want)
	}
	forged := http.Header{"X-Forwarded-For": {"203.0.113.9"}}
	if _, err := ask(t, a, Request{Client: "s1", Transport: "tcp", Header: forged}); err != nil ||
		header.Get("Authorization")+header.Get("X-Forwarded-For") != "" || len(body) != 4 {
		t.Errorf("without a token: %v, %v, %v", header, body, err)
	}
	calls := a.Stats().HookCalls
	for _, token := range []string{"a b", "a\r\nX: y", "é", strings.Repeat("x", DefaultMaxToken+1)} {
		if _, err := ask(t, a, Request{Token: token}); !errors.Is(err, ErrBadToken) {
			t.Errorf("%.20q: %v", token, err)
		}
	}
	if _, err := ask(t, a, Request{Data: json.RawMessage("{")}); !errors.Is(err, ErrBadToken) {
		t.Errorf("data: %v", err)
	}
	if st := a.Stats(); st.HookCalls != calls+1 || st.HookFailures != 0 {
		t.Errorf("%+v", st)
	}
}

// TestHookAnswers: a refusal has the code that the hook chose; without an answer that
// says something the client may come back, and does not get in.
func TestHookAnswers(t *testing.T) {
	long := strings.Repeat("x", MaxUser+1)
	for _, c := range []struct {
		answer string
		code   codec.Code // 0: accepted
		text   string
	}{
		{`{"result":{"user":""}}`, 0, ""},
		{`{"result":{"user":"é","expire_at":0,"info":null,"channels":null}}`, 0, ""},
		{`{"result":{"user":"a"},"error":null,"disconnect":null}`, 0, ""},
		{`{"result":{}}`, 3020, ""},
		{`{"result":{"user":null}}`, 3020, ""},
		{`{"result":{"user":7}}`, 3020, ""},
		{`{"result":{"user":"a\n"}}`, 3020, ""},
		{`{"result":{"user":"` + long + `"}}`, 3020, ""},
		{`{"result":{"user":"a","channels":[""]}}`, 3020, ""},
		{`{"result":{"user":"a","expire_at":-1}}`, 3020, ""},
		{`{"result":{"user":"a","expire_at":1.5}}`, 3020, ""},
		{`{"result":{"user":"a","expire_at":1700000000}}`, 3005, "token has expired"},
		{`{}`, 3020, ""},
		{`null`, 3020, ""},
		{``, 3020, ""},
		{`<html>`, 3020, ""},
		{`{"result":{"user":"a"}} x`, 3020, ""},
		{`{"error":{"code":1000,"message":"no"}}`, 3500, "no"},
		{`{"error":{"code":1000,"message":"no","temporary":true}}`, 3020, "no"},
		{`{"error":{"code":109,"message":"expired"}}`, 3005, "expired"},
		{`{"error":{}}`, 3500, "refused"},
		{`{"error":{"code":1},"result":{"user":"a"}}`, 3500, "refused"},
		{`{"disconnect":{"code":4501,"reason":"banned"}}`, 4501, "banned"},
		{`{"disconnect":{"code":4000,"reason":"later"},"result":{"user":"a"}}`, 4000, "later"},
		{`{"disconnect":{"code":3000}}`, 3000, "refused"},
		{`{"disconnect":{"code":4999}}`, 4999, "refused"},
		{`{"disconnect":{"code":5000,"reason":"x"}}`, 3500, "x"},
		{`{"disconnect":{"code":2999}}`, 3500, "refused"},
		{`{"disconnect":{"code":1000}}`, 3500, "refused"},
		{`{"disconnect":{}}`, 3500, "refused"},
		{`{"disconnect":{"code":69037}}`, 3500, "refused"}, // 3501 in 16 bits
		{`{"disconnect":{"code":-1}}`, 3020, ""},
	} {
		a := newAuthenticator(t, Config{Mode: Hook, HookURL: newHookServer(t, answering(c.answer))})
		id, err := ask(t, a, Request{})
		var e *codec.Error
		switch {
		case c.code == 0:
			if err != nil || id.Info != nil {
				t.Errorf("%s: %+v, %v", c.answer, id, err)
			}
		case !errors.As(err, &e) || e.Code != c.code || c.text != "" && e.Text != c.text || id.User != "":
			t.Errorf("%s: %+v, %v", c.answer, id, err)
		}
		if failed := a.Stats().HookFailures == 1; failed != (c.code == 3020 && c.text == "") {
			t.Errorf("%s: failed %t", c.answer, failed)
		}
	}
}

// TestHookFailures: what servers do. The client may come back, one line is logged,
// and it has neither the query of the URL nor the token.
func TestHookFailures(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, `{"result":{"user":"a"}}`)
		}
	}
	for _, c := range []struct{ name, url, log string }{
		{"dead", "http://" + dead.Addr().String(), "refused"},
		{"slow", newHookServer(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body) // the server sees the end of the connection only after that
			<-r.Context().Done()
		}), "no answer in time"},
		{"slow body", newHookServer(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			_, _ = io.WriteString(w, `{"result":`)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}), "no answer in time"},
		{"500", newHookServer(t, status(500)), "500"},
		{"401", newHookServer(t, status(401)), "401"},
		{"204", newHookServer(t, status(204)), "204"},
		{"endless", newHookServer(t, func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}), "longer than 65536 bytes"},
		{"redirect", newHookServer(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusTemporaryRedirect)
		}), "307"},
		{"hangs up", newHookServer(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body) // or else it is a reset
			panic(http.ErrAbortHandler)
		}), "EOF"},
	} {
		var log logBuffer
		a := newAuthenticator(t, Config{Mode: Hook, HookURL: c.url, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if strings.HasPrefix(c.name, "slow") {
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			}
			id, err := a.state.Load().hook.ask(ctx, Request{Token: "t0k"})
			cancel()
			if !errors.Is(err, ErrUnavailable) || id.User != "" || strings.Contains(err.Error(), "hidden") {
				t.Errorf("%s: %+v, %v", c.name, id, err)
			}
		}
		text := log.String()
		if strings.Count(text, "\n") != 1 || !strings.Contains(text, c.log) || strings.Contains(text, "hidden") ||
			strings.Contains(text, "t0k") || a.Stats().HookFailures != 3 {
			t.Errorf("%s: %+v, log:\n%s", c.name, a.Stats(), text)
		}
	}
}

// TestHookConnections: as many calls at one time as there are workers, over
// connections that are kept.
func TestHookConnections(t *testing.T) {
	const workers, checks = 4, 40
	var now, most, connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(time.Millisecond)
		now.Add(-1)
		_, _ = io.WriteString(w, `{"result":{"user":"a"}}`)
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	a := newAuthenticator(t, Config{Mode: Hook, HookURL: server.URL, Workers: workers})
	for range 3 {
		var wg sync.WaitGroup
		for range checks {
			wg.Add(1)
			if !a.Check(Request{}, func(id Identity, err error) {
				defer wg.Done()
				if err != nil || id.User != "a" {
					t.Errorf("%+v, %v", id, err)
				}
			}) {
				t.Fatal("not taken")
			}
		}
		wg.Wait()
	}
	if most.Load() > workers || connections.Load() > workers {
		t.Errorf("%d calls at one time over %d connections, with %d workers", most.Load(), connections.Load(), workers)
	}
}

// TestHookConfig: https, or http to what is not of the internet.
func TestHookConfig(t *testing.T) {
	for _, c := range []struct {
		url   string
		wrong string
	}{
		{"https://auth.example/connect", ""},
		{"https://192.0.2.1/connect", ""},
		{"http://127.0.0.1:8000", ""},
		{"http://[::1]:8000/", ""},
		{"http://10.1.2.3/", ""},
		{"http://[fd00::1]/", ""},
		{"http://auth:8000/", ""}, // looked up when it is called
		{"http://192.0.2.1/connect", "private addresses"},
		{"http://[2001:db8::1]/", "private addresses"},
		{"http://u:p@10.1.2.3/", "user or password"},
		{"grpc://auth:8000", "scheme"},
		{"/connect", "not a URL"},
		{"", "needs a URL"},
	} {
		a, err := NewAuthenticator(Config{Mode: Hook, HookURL: c.url})
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v", c.url, err)
		}
		if err == nil {
			a.Close()
		}
	}
	_, err := NewAuthenticator(Config{Mode: Hook, HookURL: "https://auth.example",
		HookHeaders: []string{"Cookie", "host", "a b", "sec-websocket-key", "", "proxy-authorization"}})
	if err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("headers: %v", err)
	}
	// The address of a name decides, not the name.
	to, err := parseEndpoint("HookURL", "http://auth.example:80/", private, hookWhere)
	if err != nil {
		t.Fatal(err)
	}
	for address, ok := range map[string]bool{"10.0.0.1:80": true, "[::1]:80": true, "[fe80::1%eth0]:80": true,
		"192.0.2.1:80": false, "[::ffff:192.0.2.1]:80": false, "[2001:db8::1]:80": false, "0.0.0.0:80": false} {
		if err := controlPlain(to, private, hookWhere)("tcp", address, nil); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// TestHookReload keeps the connections of a hook that stays.
func TestHookReload(t *testing.T) {
	url := newHookServer(t, answering(`{"result":{"user":"a"}}`))
	a := newAuthenticator(t, Config{Mode: Hook, HookURL: url})
	old := a.state.Load().hook
	same := Config{Mode: Hook, HookURL: url, Timeout: time.Minute}
	if err := a.Reload(same); err != nil || a.state.Load().hook != old {
		t.Errorf("another hook, or %v", err)
	}
	if err := a.Reload(Config{Mode: Hook, HookURL: url, Workers: 2}); err != nil || a.state.Load().hook == old {
		t.Errorf("the same hook, or %v", err)
	}
	if _, err := ask(t, a, Request{}); err != nil {
		t.Error(err)
	}
}

// FuzzHookAnswer: an answer is a valid identity, a refusal with a code, or nothing.
func FuzzHookAnswer(f *testing.F) {
	f.Add([]byte(`{"result":{"user":"56","expire_at":99999999999,"info":{},"data":[],"channels":["a"]}}`))
	f.Add([]byte(`{"error":{"code":1000,"message":"no","temporary":true}}`))
	f.Add([]byte(`{"disconnect":{"code":4501,"reason":"banned"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		id, err := parseAnswer(body)
		var e *codec.Error
		switch refused := errors.As(err, &e); {
		case err == nil && (id.User != "" && !ValidUser(id.User) || !validChannels(id.Channels) ||
			id.Info != nil && !json.Valid(id.Info) || id.Data != nil && !json.Valid(id.Data)):
			t.Errorf("%+v", id)
		case err != nil && (id.User != "" || id.Channels != nil):
			t.Errorf("%+v with %v", id, err)
		case refused && (e.Code < 3000 || e.Code > 4999 || e.Text == ""):
			t.Errorf("%+v", e)
		}
	})
}
