package main

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
A second signal ends it at once, with exit 1.

Every flag can be set by the environment, --max-frame as HEARTWHEEL_MAX_FRAME,
lists separated by commas, and in the file of --config, as a line "max-frame:
64KiB". A flag counts more than the environment, which counts more than the
file, which counts more than the profile. A duration needs a unit: 15s, 500ms,
2m. A size is in bytes or has one: 65536, 64KiB, 1MiB, 2GiB. A number may end in k or
m: 20k. "heartwheel config show" shows what it all comes to.`,
		Example: `  heartwheel serve
  heartwheel serve --profile fast --listen tcp://0.0.0.0:9000 --max-connections 500k
  HEARTWHEEL_DRAIN=2m heartwheel serve --config heartwheel.yaml`,
		Args: noArgs,
	}
	flags := addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := resolve(envLayer(environ), flags())
		if err != nil {
			return err
		}
		// A log that nobody reads any more is no reason to drop every connection.
		signal.Ignore(syscall.SIGPIPE)
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		defer signal.Stop(signals)
		return serve(r, newLogger(cmd.ErrOrStderr(), r.logFormat, r.logLevel), signals)
	}
	return cmd
}

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

// serve runs the server until it ends by itself, which is a failure, or a
// signal asks it to drain. After a second signal it returns while the server
// still runs: the process has to end.
func serve(r *resolved, log *slog.Logger, signals <-chan os.Signal) error {
	r.Logger = log
	ops, err := listenOps(r.ops, log)
	if err != nil {
		return &failure{err: err}
	}
	s, err := server.New(r.Config, server.Echo{})
	if err != nil {
		ops.close()
		return &failure{err: err}
	}
	ops.serve(s.OpsHandler())

	timeout, _ := r.show(settingByKey("timeout"))
	for _, addr := range s.Addrs() {
		log.Info("listening", "addr", addr.String(), "profile", r.profile, "beat", wording.Duration(r.Beat),
			"timeout", timeout, "beats", r.beats, "handler", r.handler)
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var asked time.Time
	for {
		select {
		case sig := <-signals:
			if !asked.IsZero() {
				log.Error("second signal: ended at once, the drain was not over", "signal", sig.String())
				return &failure{err: errors.New("ended by a second signal"), logged: true}
			}
			asked = time.Now()
			log.Info("draining; a second signal ends at once", "signal", sig.String(), "at_most", wording.Duration(r.Drain))
			cancel()
		case err := <-done:
			ops.close()
			if err == nil && asked.IsZero() {
				err = errors.New("the server ended without being asked to")
			}
			if err != nil {
				log.Error("ended", "error", err)
				return &failure{err: err, logged: true}
			}
			log.Info("drained", "took", time.Since(asked).Round(time.Millisecond).String())
			return nil
		}
	}
}

// An opsServer is the HTTP server for operators. The nil one does nothing.
type opsServer struct {
	http http.Server
	ln   net.Listener
	log  *slog.Logger
	done chan struct{} // closed when serving has ended; nil before it began
}

// listenOps opens the address, or returns nil if it is off.
func listenOps(addr string, log *slog.Logger) (*opsServer, error) {
	if addr == "off" {
		return nil, nil
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
	return &opsServer{ln: ln, log: log}, nil
}

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
		if err := o.http.Serve(o.ln); !errors.Is(err, http.ErrServerClosed) {
			// The connections matter more: they stay.
			o.log.Error("the ops address is not served any more", "error", err)
		}
	}()
	o.log.Info("ops listening", "addr", o.ln.Addr().String())
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
