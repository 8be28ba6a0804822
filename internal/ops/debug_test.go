package ops

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestLocalOnly(t *testing.T) {
	mux := http.NewServeMux()
	HandlePprof(mux)
	h := LocalOnly(mux)
	for _, test := range []struct {
		remote string
		local  net.Addr
		want   int
	}{
		{"127.0.0.1:1", nil, http.StatusOK},
		{"[::1]:1", nil, http.StatusOK},
		{"192.0.2.1:1", nil, http.StatusForbidden},
		{"[2001:db8::1]:1", nil, http.StatusForbidden},
		{"", nil, http.StatusForbidden},
		{"@", nil, http.StatusForbidden},
		{"@", &net.UnixAddr{}, http.StatusOK},
	} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/symbol"} {
			r := httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil)
			r.RemoteAddr = test.remote
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, test.local))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != test.want {
				t.Errorf("%s from %q at %v: %d, want %d", path, test.remote, test.local, w.Code, test.want)
			}
		}
	}
}

// TestLocalOnlyByName: a client on this machine may act for another: a browser
// under a name that was rebound to loopback, or a proxy.
func TestLocalOnlyByName(t *testing.T) {
	mux := http.NewServeMux()
	HandlePprof(mux)
	h := LocalOnly(mux)
	for _, test := range []struct {
		host, header string
		unix         bool
		reason       string // part of the answer of a refusal
	}{
		{host: "localhost"}, {host: "LocalHost:9090"}, {host: "127.0.0.1:9090"}, {host: "127.9.9.9"},
		{host: "[::1]:9090"}, {host: "[::1]"}, {host: "worker", unix: true},
		{host: "evil.example:9090", reason: `the Host "evil.example:9090"`},
		{host: "192.0.2.1", reason: "the Host"}, {host: "", reason: "the Host"},
		{host: "localhost.evil.example", reason: "the Host"},
		{host: "127.0.0.1.evil.example", reason: "the Host"}, {host: "localhost@evil.example", reason: "the Host"},
		{host: "localhost", header: "X-Forwarded-For", reason: "the header X-Forwarded-For"},
		{host: "localhost", header: "x-real-ip", reason: "the header X-Real-Ip"},
		{host: "localhost", header: "Forwarded", reason: "the header Forwarded"},
		{host: "localhost", header: "X-Forwarded-Host", reason: "the header X-Forwarded-Host"},
		{host: "localhost", header: "X-Forwarded-Proto", reason: "the header X-Forwarded-Proto"},
		{host: "localhost", header: "Via", reason: "the header Via"},
		{host: "worker", header: "Forwarded", unix: true, reason: "the header Forwarded"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/debug/pprof/cmdline", nil)
		r.RemoteAddr, r.Host = "127.0.0.1:1", test.host
		if test.header != "" {
			r.Header.Set(test.header, "")
		}
		if test.unix {
			r.RemoteAddr = "@"
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.UnixAddr{}))
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		want := http.StatusOK
		if test.reason != "" {
			want = http.StatusForbidden
		}
		if w.Code != want || !strings.Contains(w.Body.String(), test.reason) {
			t.Errorf("%+v: %d %q, want %d", test, w.Code, w.Body, want)
		}
	}
}
