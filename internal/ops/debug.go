package ops

import (
	"net"
	"net/http"
	"net/http/pprof"
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
// what memory holds. Clients of a Unix socket are on this machine. The result is
// as safe for concurrent use as h.
func LocalOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, unix := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr)
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); !unix && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "/debug/ answers clients on this machine only; forward the port, for example with ssh -L",
				http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
