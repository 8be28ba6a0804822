package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"heartwheel/internal/wording"
	"heartwheel/server"
)

func newServe(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the heartbeat server",
		Long: `Runs the heartbeat server until SIGTERM or SIGINT, then drains and exits 0.
A second signal ends it at once, with exit 1. SIGHUP replaces it by a new
process of the binary that is then at its path, with the same arguments and the
configuration file as it is then: no client is refused meanwhile, and a new
process that does not get ready changes nothing.

With --workers this process serves nobody itself: it starts so many that do,
gives each a socket of its own for every address of --listen, starts again what
has ended, and answers on --ops for all. SIGTERM drains all of them; SIGHUP
replaces them, some at a time.

Every flag can be set by the environment, --max-frame as HEARTWHEEL_MAX_FRAME,
lists separated by commas, and in the file of --config, as a line "max-frame:
64KiB". A flag counts more than the environment, which counts more than the
file, which counts more than the profile. A duration needs a unit: 15s, 500ms,
2m. A size is in bytes or has one: 65536, 64KiB, 1MiB, 2GiB. A number may end in k or
m: 20k. "heartwheel config show" shows what it all comes to.`,
		Example: `  heartwheel serve
  heartwheel serve --profile fast --listen tcp://0.0.0.0:9000 --max-connections 500k
  heartwheel serve --profile iot --max-connections 1m --workers auto
  HEARTWHEEL_DRAIN=2m heartwheel serve --config heartwheel.yaml`,
		Args: noArgs,
	}
	flags := addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := resolve(envLayer(environ), flags())
		if err != nil {
			return err
		}
		given, err := inherit(environ)
		if err != nil {
			return &failure{err: err}
		}
		if lookup(environ, "GOGC") == "" {
			debug.SetGCPercent(gcPercent)
		}
		// A log that nobody reads any more is no reason to drop every connection.
		signal.Ignore(syscall.SIGPIPE)
		log := newLogger(cmd.ErrOrStderr(), r.logFormat, r.logLevel)
		if given.worker != nil { // signals are the supervisor's business
			signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			return serveAsWorker(r, log, given)
		}
		p, err := thisProgram(os.Args, environ, os.Stderr)
		if err != nil {
			return &failure{err: err}
		}
		signals, hangups := make(chan os.Signal, 2), make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		defer signal.Stop(signals)
		if !signal.Ignored(syscall.SIGHUP) { // as under nohup, which means to survive a terminal
			signal.Notify(hangups, syscall.SIGHUP)
			defer signal.Stop(hangups)
		}
		if r.workers != 0 {
			if given.given() {
				given.close()
				return &failure{err: errors.New("workers cannot begin by a hand-over: restart the server")}
			}
			again := func() (*resolved, error) { return resolve(envLayer(environ), flags()) }
			return supervise(r, log, &supervisor{program: p, manager: managerOf(environ), signals: signals, hangups: hangups, again: again})
		}
		return serve(r, log, given, &serving{program: p, manager: managerOf(environ), signals: signals, hangups: hangups})
	}
	return cmd
}

// gcPercent is how much garbage the collector lets be, in per cent of what
// lives, unless GOGC says otherwise. Frames make no garbage, so that it hardly
// ever runs once the clients are there, and each connection takes a fifth less
// than with Go's 100 (docs/benchmarks.md).
const gcPercent = 25

var yamlFiles = []string{"yaml", "yml"}

// addFlags gives cmd a flag for every setting. The result returns, once the
// flags are parsed, the layer of those that were given.
func addFlags(cmd *cobra.Command) func() layer {
	fs := cmd.Flags()
	fs.SortFlags = false
	for _, s := range settings {
		help := s.help
		if s.kind == wordKind {
			help += "; " + wording.Choice(s.words)
		}
		if s.def == "" {
			help += " (default: " + s.unset + ")"
		}
		f := fs.VarPF(&flagValue{setting: s}, s.key, "", strings.ReplaceAll(help, "`", `"`))
		if s.kind == boolKind {
			f.NoOptDefVal = "true"
		}
		complete := cobra.NoFileCompletions
		switch s.kind {
		case wordKind:
			complete = cobra.FixedCompletions(s.words, cobra.ShellCompDirectiveNoFileComp)
		case boolKind:
			complete = cobra.FixedCompletions([]string{"true", "false"}, cobra.ShellCompDirectiveNoFileComp)
		case pathKind:
			complete = cobra.FixedCompletions(yamlFiles, cobra.ShellCompDirectiveFilterFileExt)
		}
		if err := cmd.RegisterFlagCompletionFunc(s.key, complete); err != nil {
			panic(err) // two settings with one key
		}
	}
	return func() layer {
		values := map[string]any{}
		for _, s := range settings {
			if !fs.Changed(s.key) {
				continue
			}
			texts := fs.Lookup(s.key).Value.(*flagValue).texts
			if s.kind == listKind {
				values[s.key] = texts
			} else {
				values[s.key] = texts[len(texts)-1]
			}
		}
		return flagLayer(values)
	}
}

// A flagValue keeps what was written, so that everything that is wrong can be
// reported at once later.
type flagValue struct {
	*setting
	texts []string
}

func (v *flagValue) Set(text string) error { v.texts = append(v.texts, text); return nil }
func (v *flagValue) String() string {
	if v.setting == nil { // the zero value that the help compares with
		return ""
	}
	return v.def
}
func (v *flagValue) Type() string { return string(v.kind) }

func newLogger(w io.Writer, format, level string) *slog.Logger {
	var l slog.Level
	// The words of log-level are names of levels.
	_ = l.UnmarshalText([]byte(level))
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l}))
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l}))
}

// serve runs the server until it ends by itself, which is a failure, or v is
// asked to end it.
func serve(r *resolved, log *slog.Logger, given *inheritance, v *serving) error {
	if given.given() {
		log = withPID(log)
	}
	r.Logger = log
	ops, err := v.openOps(r.ops, given, log)
	if err != nil {
		given.close()
		return &failure{err: err}
	}
	r.Sockets = given.take(tcpScheme)
	s, err := server.New(r.Config, server.Echo{})
	if err != nil {
		ops.close()
		given.close()
		return &failure{err: err}
	}
	v.r, v.log, v.s, v.ops, v.given = r, log, s, ops, given
	return v.run()
}

// serveAsWorker runs the server in the place that a supervisor has for it.
func serveAsWorker(r *resolved, log *slog.Logger, given *inheritance) error {
	u := given.worker
	descriptors, err := server.RaiseDescriptorLimit()
	if descriptors != 0 { // else server.New says it
		err = u.accepts(r, given.sockets, descriptors)
	}
	if err != nil {
		given.close()
		return &failure{err: err}
	}
	r.Shared = given.count
	if r.Loops == 0 {
		r.Loops = u.loops
	}
	if r.MemoryLimit > 0 {
		r.MemoryLimit /= u.count
	}
	u.begin()
	return serve(r, log.With("worker", u.index), given, &serving{worker: u})
}

// withPID is for the time when two processes write to one log.
func withPID(log *slog.Logger) *slog.Logger { return log.With("pid", os.Getpid()) }

// An opsServer is the HTTP server for operators. The nil one does nothing.
type opsServer struct {
	http http.Server
	addr string // as in the settings; empty: a worker's, which has none
	ln   net.Listener
	log  *slog.Logger
	done chan struct{} // closed when serving has ended; nil before it began
}

// listenOps opens the address, or returns nil if it is off. A socket that is
// given listens there already.
func listenOps(addr string, given *net.TCPListener, log *slog.Logger) (*opsServer, error) {
	if addr == "off" {
		return nil, nil
	}
	if given != nil {
		return &opsServer{addr: addr, ln: given, log: log}, nil
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		do := "give --ops an address of this machine, or off"
		if errors.Is(err, syscall.EADDRINUSE) {
			do = "another process has this port; stop it, or give --ops another address, or off"
		}
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // without the address, which is said already
		}
		return nil, fmt.Errorf("cannot listen on %s for ops: %w: %s", addr, err, do)
	}
	return &opsServer{addr: addr, ln: ln, log: log}, nil
}

// A patientListener calls every failure of accept temporary while it is open,
// so that an http.Server tries again. By itself that takes ENOBUFS and ENOMEM,
// which pass as EMFILE does, for the end.
type patientListener struct{ net.Listener }

func (l patientListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		err = temporaryError{err}
	}
	return c, err
}

// A temporaryError is a net.Error that passes.
type temporaryError struct{ error }

func (temporaryError) Temporary() bool { return true }
func (temporaryError) Timeout() bool   { return false }
func (e temporaryError) Unwrap() error { return e.error }

// serve answers requests until close.
func (o *opsServer) serve(h http.Handler) {
	if o == nil {
		return
	}
	o.http = http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute, // profiles that take longer extend it themselves
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(o.log.Handler(), slog.LevelDebug),
	}
	o.done = make(chan struct{})
	go func() {
		defer close(o.done)
		if err := o.http.Serve(patientListener{o.ln}); !errors.Is(err, http.ErrServerClosed) {
			// The connections matter more: they stay.
			o.log.Error("the ops address is not served any more", "error", err)
		}
	}()
	if o.addr != "" {
		o.log.Info("ops listening", "addr", o.ln.Addr().String())
	}
}

// sockets is what a successor needs to go on.
func (o *opsServer) sockets() []server.Socket {
	if o == nil {
		return nil
	}
	return []server.Socket{{Address: opsScheme + o.addr, Listener: o.ln.(*net.TCPListener)}}
}

// leave stops accepting, as another process does so on the same socket. Short
// requests under way are answered first, as that this process drains is not what
// they want to know; long ones go on until close.
func (o *opsServer) leave() {
	if o == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = o.http.Shutdown(ctx) // the error is that some go on
}

// close ends serving: requests under way get a second.
func (o *opsServer) close() {
	if o == nil {
		return
	}
	if o.done == nil {
		o.ln.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := o.http.Shutdown(ctx); err != nil {
		o.http.Close()
	}
	<-o.done
}
