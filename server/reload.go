package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"heartwheel/internal/auth"
	"heartwheel/internal/edge/tlsedge"
	"heartwheel/internal/edge/websocket"
)

// inForce is what the Config means to accepting. It does not change: Reload puts
// another one in its place.
type inForce struct {
	cfg        Config        // complete
	ends       []endpoint    // of cfg
	notices    [][]byte      // GOAWAY frame per refusal, by admission.Cause; nil: made for each
	tcpTimeout time.Duration // idle timeout of a connection that does not ask for another

	// By endpoint.
	proxyFrom [][]netip.Prefix
	trusted   [][]netip.Prefix        // of TrustedProxies
	upgraders []*websocket.Upgrader   // nil: no HTTP request comes first
	auths     [][]*auth.Authenticator // and by path; nil: clients are not identified
}

// newInForce makes it of cfg, which is valid. ready is for health checks.
func newInForce(cfg Config, ready func() bool) *inForce {
	f := &inForce{cfg: cfg, notices: newNotices(cfg.Spread)}
	_, f.tcpTimeout = cfg.decide(0)
	f.ends, _ = cfg.endpoints()
	for _, e := range f.ends {
		u, _ := e.upgrader(ready)
		f.proxyFrom, f.upgraders = append(f.proxyFrom, prefixes(e.ProxyFrom)), append(f.upgraders, u)
		f.trusted = append(f.trusted, prefixes(e.TrustedProxies))
	}
	return f
}

// tcpTimeout returns the idle timeout of a connection that does not ask for
// another.
func (s *Server) tcpTimeout() time.Duration { return s.inForce.Load().tcpTimeout }

// Reload puts cfg in force in place of the Config given to New or to the Reload
// before. It closes no connection:
//
//   - Certificates, which are read again, ClientCA, ProxyFrom, TrustedProxies and Origins, the limits of
//     connections and addresses, Ban and Trust hold for connections that come.
//     AddressMax does not count those that came while nothing was limited by address.
//     A shorter BanTime shortens the bans of flapping addresses, and they end if
//     FlapLimit is 0.
//   - The beat times, Beats and RequireHello hold for connections that come, and
//     the beat times for those that ask for an interval from then on. A higher
//     BeatFloor holds for connections that come, a lower one for all.
//   - WriteStall, Drain and Spread hold for all.
//
// Listen and the addresses of Listeners, Framing, MaxFrame, Outbox, MemoryLimit and
// Loops cannot change: if one differs, Reload fails with a *FieldError for each, as it
// does for everything that Validate finds wrong, and nothing has changed. Sockets, Quota, Processes and Logger
// are not looked at. Reload fails with ErrClosed once a drain has begun, which
// does not wait for a Reload: a JWK set that is new takes one 3 s at most. Safe for
// concurrent use.
func (s *Server) Reload(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	s.reloadMu.Lock()
	defer s.reloadMu.Unlock()
	if s.stopping() {
		return ErrClosed
	}
	was := s.inForce.Load()
	old := &was.cfg
	cfg.Logger, cfg.Sockets, cfg.Quota, cfg.Processes = old.Logger, old.Sockets, old.Quota, old.Processes
	cfg = cfg.WithDefaults()
	if err := checkFixed(old, &cfg); err != nil {
		return err
	}
	next := newInForce(cfg, s.ready.Load)
	files, err := cfg.readFiles(next.ends)
	if err != nil {
		return err
	}
	if next.auths, err = makeAuths(next.ends, files.auths, was); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if err := s.putInForce(next, files.tls); err != nil {
		closeAuths(next.auths, was.auths)
		return err
	}
	go closeAuths(was.auths, next.auths)
	return nil
}

// putInForce puts next in force, and certificates, by endpoint; nil: without TLS.
func (s *Server) putInForce(next *inForce, certificates []*tlsedge.Server) error {
	s.forceMu.Lock()
	defer s.forceMu.Unlock()
	if s.draining {
		return ErrClosed
	}
	if err := s.admission.Reload(next.cfg.admission()); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	for i, t := range certificates {
		if t != nil {
			s.listeners[i].tls.Use(t)
		}
	}
	s.inForce.Store(next)
	for _, ln := range s.listeners {
		ln.setOptions(next.tcpTimeout)
	}
	most := strangersMost(s.admission.Max(), next.cfg.Loops)
	for _, l := range s.loops {
		_ = l.mail.postOwn(func() { l.reload(next, most) }) // it fails for a loop that has ended
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
	if is, was := cfg.addresses(), old.addresses(); !slices.Equal(is, was) {
		differs("Listen", strings.Join(is, " "), strings.Join(was, " "))
	}
	if is, was := cfg.framings(), old.framings(); len(is) == len(was) { // else Listen differs
		for i, f := range is {
			if !f.same(was[i]) {
				errs = append(errs, &FieldError{"Framing", f.withDefaults().Kind,
					"cannot change while the server runs, nor can what belongs to it"})
			}
		}
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
func (l *loop) reload(f *inForce, strangers int) {
	cfg := &f.cfg
	l.useEdges(f)
	if cfg.BeatFloor > l.cfg.BeatFloor {
		l.floorAfter = l.seq
	}
	l.cfg, l.strangers.most = cfg, strangers
}
