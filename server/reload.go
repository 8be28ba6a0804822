package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// inForce is what the Config means to accepting. It does not change: Reload puts
// another one in its place.
type inForce struct {
	cfg        Config   // complete
	notices    [][]byte // GOAWAY frame per refusal, by admission.Cause; nil: made for each
	proxyFrom  []netip.Prefix
	tcpTimeout time.Duration // idle timeout of a connection that does not ask for another
}

func newInForce(cfg Config) *inForce {
	f := &inForce{cfg: cfg, notices: newNotices(cfg.Spread)}
	_, f.tcpTimeout = cfg.decide(0)
	f.proxyFrom = prefixes(cfg.ProxyFrom)
	return f
}

// tcpTimeout returns the idle timeout of a connection that does not ask for
// another.
func (s *Server) tcpTimeout() time.Duration { return s.inForce.Load().tcpTimeout }

// Reload puts cfg in force in place of the Config given to New or to the Reload
// before. It closes no connection:
//
//   - The limits of connections and addresses, Ban, Trust and ProxyFrom hold for connections
//     that come. AddressMax does not count those that came while nothing was
//     limited by address. A shorter BanTime shortens the bans of flapping
//     addresses, and they end if FlapLimit is 0.
//   - The beat times, Beats and RequireHello hold for connections that come, and
//     the beat times for those that ask for an interval from then on. A higher
//     BeatFloor holds for connections that come, a lower one for all.
//   - WriteStall, Drain and Spread hold for all.
//
// Listen, MaxFrame, Outbox, MemoryLimit and Loops cannot change: if one differs,
// Reload fails with a *FieldError for each, as it does for everything that
// Validate finds wrong, and nothing has changed. Sockets, Quota, Processes and Logger
// are not looked at. Reload fails with ErrClosed once a drain has begun. Safe for
// concurrent use.
func (s *Server) Reload(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	s.reloadMu.Lock()
	defer s.reloadMu.Unlock()
	if s.draining {
		return ErrClosed
	}
	old := &s.inForce.Load().cfg
	cfg.Logger, cfg.Sockets, cfg.Quota, cfg.Processes = old.Logger, old.Sockets, old.Quota, old.Processes
	cfg = cfg.WithDefaults()
	if err := checkFixed(old, &cfg); err != nil {
		return err
	}
	if err := s.admission.Reload(cfg.admission()); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	next := newInForce(cfg)
	s.inForce.Store(next)
	for _, ln := range s.listeners {
		ln.setOptions(next.tcpTimeout)
	}
	most := strangersMost(s.admission.Max(), next.cfg.Loops)
	for _, l := range s.loops {
		_ = l.mail.postOwn(func() { l.reload(&next.cfg, most) }) // it fails for a loop that has ended
	}
	return nil
}

// checkFixed reports every field that Reload cannot change and that differs.
func checkFixed(old, cfg *Config) error {
	var errs []error
	differs := func(field string, is, was any) {
		if is != was {
			errs = append(errs, &FieldError{field, fmt.Sprint(is),
				fmt.Sprintf("cannot change while the server runs; it is %v", was)})
		}
	}
	if !slices.Equal(old.listenAddresses(), cfg.listenAddresses()) {
		differs("Listen", fmt.Sprint(cfg.Listen), fmt.Sprint(old.Listen))
	}
	differs("MaxFrame", cfg.MaxFrame, old.MaxFrame)
	differs("Outbox", cfg.Outbox, old.Outbox)
	differs("MemoryLimit", cfg.MemoryLimit, old.MemoryLimit)
	differs("Loops", cfg.Loops, old.Loops)
	return errors.Join(errs...)
}

// reload puts cfg in force on this loop. Connections that are open have no beat
// floor any more if it rises: they were promised another one. strangers is how many
// may wait from now on. Loop only.
func (l *loop) reload(cfg *Config, strangers int) {
	if cfg.BeatFloor > l.cfg.BeatFloor {
		l.floorAfter = l.seq
	}
	l.cfg, l.strangers.most = cfg, strangers
}
