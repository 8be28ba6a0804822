package settings

import (
	"cmp"
	"log/slog"
	"net"
	"os"

	"heartwheel/internal/wording"
)

// Show returns the value of s in force, as a user would write it, and where it
// comes from. The value is "-" where the server decides it when it starts.
func (r *Resolved) Show(s *Setting) (value, from string) {
	value, origin := s.Show(&r.Options, r.merged)
	if value == "" {
		value = "-"
	}
	return value, origin.String()
}

// LogStart logs what this process is and runs with. limit is the connection limit in
// force, of all workers together.
func (r *Resolved) LogStart(log *slog.Logger, version string, limit, workers int) {
	why := "descriptor limit"
	if r.MaxConnections == limit {
		_, why = r.Show(Table.ByKey("max-connections"))
	}
	log.Info("starting", "version", version, "pid", os.Getpid(), "max_connections", limit, "limit_from", why,
		"workers", workers, "config", cmp.Or(r.File, "none"))
}

// LogListening logs each listening address, with the heartbeat times in force
// there.
func (r *Resolved) LogListening(log *slog.Logger, addrs []net.Addr, more ...any) {
	timeout, _ := r.Show(Table.ByKey("timeout"))
	schemes := r.Schemes()
	for i, addr := range addrs {
		args := []any{"addr", addr.String(), "profile", r.Profile, "beat", wording.Duration(r.Beat),
			"timeout", timeout, "beats", r.BeatSide, "handler", r.Handler, "scheme", schemes[i]}
		log.Info("listening", append(args, more...)...)
	}
}
