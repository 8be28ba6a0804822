package settings

import (
	"log/slog"
	"net"

	"heartwheel/internal/wording"
)

// Show returns the value of s in force, as a user would write it, and where it
// comes from. The value is "-" where the server decides it when it starts.
func (r *Resolved) Show(s *Setting) (value, from string) {
	if origin, ok := r.origins[s.Key]; ok {
		return s.Value(&r.Options), origin
	}
	value = "-"
	if s.derive != nil {
		value = s.derive(&r.Options)
	}
	return value, "default: " + s.Unset
}

// LogListening logs each address that is listened on, with the heartbeat times
// in force there.
func (r *Resolved) LogListening(log *slog.Logger, addrs []net.Addr, more ...any) {
	timeout, _ := r.Show(ByKey("timeout"))
	for _, addr := range addrs {
		log.Info("listening", append([]any{"addr", addr.String(), "profile", r.Profile, "beat", wording.Duration(r.Beat),
			"timeout", timeout, "beats", r.BeatSide, "handler", r.Handler}, more...)...)
	}
}
