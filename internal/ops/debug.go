package ops

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"strings"
)

// HandlePprof registers Go's profiles below /debug/pprof/.
func HandlePprof(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

// LocalOnly refuses clients on other machines with 403, because profiles show
// what memory holds. Clients of a Unix socket are on this machine. Being local is
// not enough: a proxy on this machine forwards what others ask, and a browser on
// it sends what a foreign page asks once the page's name resolves to loopback (DNS
// rebinding). So the Host must be loopback too, and no proxy may have left a
// header. The result is as safe for concurrent use as h.
func LocalOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why := notLocal(r); why != "" {
			http.Error(w, why, http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// proxyHeaders are those that proxies add to what they forward.
var proxyHeaders = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"}

// notLocal returns why r may not read /debug/; empty: it may.
func notLocal(r *http.Request) string {
	for _, name := range proxyHeaders {
		if _, ok := r.Header[name]; ok {
			return "/debug/ does not answer through a proxy, and the request has the header " + name +
				"; ask this server itself, for example through ssh -L"
		}
	}
	if _, unix := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr); unix {
		return ""
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "/debug/ answers clients on this machine only; forward the port, for example with ssh -L"
	}
	if !loopbackHost(r.Host) {
		return fmt.Sprintf("/debug/ answers only under a loopback name, and the request has the Host %q; "+
			"write localhost or 127.0.0.1 in the URL", r.Host)
	}
	return ""
}

// loopbackHost reports whether a Host header, HOST or HOST:PORT, is localhost or
// a loopback address.
func loopbackHost(text string) bool {
	u := url.URL{Host: text}
	host := u.Hostname()
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}
