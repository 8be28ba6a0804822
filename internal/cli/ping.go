package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/spf13/cobra"

	"heartwheel/client"
	"heartwheel/internal/settings"
	"heartwheel/internal/wording"
)

func newPing(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ping URL",
		Short: "Send heartbeats and show their round-trip times",
		Long: `Connects to a heartbeat server and sends heartbeats. Prints the round-trip time
of each, and a summary after --count beats or SIGINT; a second SIGINT exits at
once. If the connection is lost it prints the reason and reconnects; beats that
are due meanwhile count as lost.

URL is tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/path,
wss://HOST:PORT/path or unix:///PATH. --ca, --cert, --key and --server-name are
for tls:// and wss://.

The token that HELLO carries is the one of --token, otherwise the content of
--token-file without its last line break, otherwise that of HEARTWHEEL_TOKEN.
--token can be seen in the list of processes. A regular file is read again for
each connection.

Exits 0 if a beat was answered, like ping(8); 1 if none was, if it could not
connect, or if the server said not to reconnect; 64 for wrong usage.`,
		Example: `  heartwheel ping tcp://127.0.0.1:9000
  heartwheel ping -c 10 -i 200ms tcp://127.0.0.1:9000
  heartwheel ping -c 1 -W 1s --connect-timeout 1s tcp://10.0.0.1:9000
  heartwheel ping --ca ca.pem wss://example.com/heartbeat`,
	}
	f := newClientFlags(cmd)
	f.add("count", "c", "number", "0", "beats to send; 0: until SIGINT")
	f.add("interval", "i", "duration", "1s", "time between beats")
	f.add("wait", "W", "duration", "10s", "a beat without an answer for this long is lost")
	f.addToken()
	f.addTLS()
	f.add("connect-timeout", "", "duration", "10s", "time limit of an attempt to connect")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p := &pinger{
			out: cmd.OutOrStdout(), count: f.count("count"),
			interval: f.duration("interval", 10*time.Millisecond, 24*time.Hour),
			wait:     f.duration("wait", time.Millisecond, 10*time.Minute),
			events:   make(chan client.Event, 4), results: make(chan beatResult), done: make(chan struct{}),
		}
		cfg := client.Config{
			OnState: p.onState, ConnectTimeout: f.duration("connect-timeout", time.Millisecond, time.Hour),
		}
		f.setToken(&cfg, environ)
		f.setTLS(&cfg, args[0])
		if err := f.err(); err != nil {
			return err
		}
		signals, stop := notifySignals()
		defer stop()
		var err error
		if p.client, err = f.dial(signals, args[0], cfg); err != nil {
			return err
		}
		start := time.Now()
		err = p.run(signals)
		close(p.done)
		fmt.Fprint(p.out, p.stats.summary(args[0], time.Since(start)))
		return errors.Join(err, closeClient(p.client, signals))
	}
	return cmd
}

// A pinger sends beats and prints their results. Its fields belong to the
// goroutine of run, except where they are channels.
type pinger struct {
	client         *client.Client
	out            io.Writer
	count          int // 0: no end
	interval, wait time.Duration

	events  chan client.Event // has room for those of Dial
	results chan beatResult
	done    chan struct{} // closed when events and results are not read any more

	addr       string          // of the present connection
	connCtx    context.Context // ends with the present connection; nil: none
	cancelConn context.CancelFunc
	lastBeat   <-chan struct{} // closed when the latest beat's result has been delivered; nil: no beat yet
	stats      pingStats
}

// A beatResult is the result of one beat.
type beatResult struct {
	seq int
	rtt time.Duration
	err error // nil: answered
}

var errNotConnected = errors.New("not connected")

func (p *pinger) onState(e client.Event) {
	select {
	case p.events <- e:
	case <-p.done:
	}
}

// run sends beats until count of them have a result or a signal arrives. It
// returns an error if no beat was answered or the server said not to reconnect.
func (p *pinger) run(signals <-chan os.Signal) error {
	for p.connCtx == nil {
		p.event(<-p.events) // Dial has returned: Connected is among them
	}
	ticker := time.NewTicker(p.interval)
	defer ticker.Stop()
	due := ticker.C
	p.beat()
loop:
	for p.count == 0 || p.stats.answered+p.stats.lost < p.count {
		if p.stats.sent == p.count {
			due = nil
		}
		select {
		case <-due:
			p.beat()
		case r := <-p.results:
			p.record(r)
		case e := <-p.events:
			if p.event(e); e.State == client.Ended {
				return &settings.Failure{Err: errors.New("the client has ended"), Logged: true}
			}
		case <-signals:
			break loop
		}
	}
	if p.stats.answered == 0 {
		return &settings.Failure{Err: errors.New("no beat was answered"), Logged: true}
	}
	return nil
}

// event acts on a change of the connection's state, and prints it. Pending beats
// end with their connection: they must not be sent on the next one.
func (p *pinger) event(e client.Event) {
	if p.cancelConn != nil {
		p.cancelConn()
		p.connCtx, p.cancelConn = nil, nil
	}
	switch e.State {
	case client.Connecting:
		return // Waiting has announced it, except for the first attempt
	case client.Connected:
		p.addr = e.Addr
		p.connCtx, p.cancelConn = context.WithCancel(context.Background())
	}
	fmt.Fprintln(p.out, visible([]byte(e.String())))
}

// beat sends the next beat. Without a connection it is lost at once.
func (p *pinger) beat() {
	p.stats.sent++
	seq := p.stats.sent
	if p.connCtx == nil {
		p.record(beatResult{seq: seq, err: errNotConnected})
		return
	}
	ctx, cancel := context.WithTimeout(p.connCtx, p.wait)
	previous, delivered := p.lastBeat, make(chan struct{})
	p.lastBeat = delivered
	go func() {
		defer cancel()
		defer close(delivered)
		rtt, err := p.client.Beat(ctx)
		if previous != nil { // several answers may arrive at once: print them in order
			<-previous
		}
		select {
		case p.results <- beatResult{seq, rtt, err}:
		case <-p.done:
		}
	}()
}

// record counts and prints the result of a beat.
func (p *pinger) record(r beatResult) {
	if r.err == nil {
		p.stats.add(r.rtt)
		fmt.Fprintf(p.out, "answer from %s: seq=%d time=%s ms\n", p.addr, r.seq, milliseconds(r.rtt))
		return
	}
	p.stats.lost++
	why := "connection lost"
	switch {
	case errors.Is(r.err, context.DeadlineExceeded):
		why = "after " + wording.Duration(p.wait)
	case r.err == errNotConnected:
		why = r.err.Error()
	}
	fmt.Fprintf(p.out, "no answer from %s: seq=%d %s\n", p.addr, r.seq, why)
}

// pingStats counts beats and summarises their round-trip times by Welford's
// algorithm, which is numerically stable.
type pingStats struct {
	sent, answered, lost int
	min, max             time.Duration
	mean                 float64 // ns
	squares              float64 // sum of squared differences from the mean, ns²
}

// add counts an answer.
func (s *pingStats) add(rtt time.Duration) {
	s.answered++
	if s.answered == 1 {
		s.min = rtt
	}
	s.min, s.max = min(s.min, rtt), max(s.max, rtt)
	delta := float64(rtt) - s.mean
	s.mean += delta / float64(s.answered)
	s.squares += delta * (float64(rtt) - s.mean)
}

// stddev returns the population standard deviation, which ping(8) calls mdev.
func (s *pingStats) stddev() time.Duration {
	return time.Duration(math.Sqrt(s.squares / float64(max(1, s.answered))))
}

// summary returns the last lines of the output. A pending beat is neither answered
// nor lost.
func (s *pingStats) summary(url string, took time.Duration) string {
	finished := s.answered + s.lost
	text := fmt.Sprintf("\n--- %s ---\n%d beats, %d answered, %.6g%% lost",
		url, s.sent, s.answered, 100*float64(s.lost)/float64(max(1, finished)))
	if pending := s.sent - finished; pending > 0 {
		text += fmt.Sprintf(", %d pending", pending)
	}
	text += fmt.Sprintf(", time %s\n", took.Round(time.Millisecond))
	if s.answered > 0 {
		text += fmt.Sprintf("rtt min/avg/max/stddev = %s/%s/%s/%s ms\n",
			milliseconds(s.min), milliseconds(time.Duration(s.mean)), milliseconds(s.max), milliseconds(s.stddev()))
	}
	return text
}

// milliseconds formats d like ping(8).
func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.3f", float64(d)/float64(time.Millisecond))
}
