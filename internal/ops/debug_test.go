package ops

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
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
			r := httptest.NewRequest(http.MethodGet, path, nil)
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
