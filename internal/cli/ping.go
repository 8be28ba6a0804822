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

func newPing() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ping tcp://HOST:PORT",
		Short: "Beat once a second and show how long each answer takes",
		Long: `Connects to a heartbeat server, as a client that beats, and shows the
round-trip time of one heartbeat after the other, until -c of them are over or
SIGINT comes; a second SIGINT ends it at once. Then a summary. When the
connection is lost it says why and connects again; beats that would have been
sent meanwhile count as lost.

Exits 0 if a beat was answered, as ping(8) does; 1 if none was, if there was no
connection, or if the server said not to come back; 2 for wrong usage.`,
		Example: `  heartwheel ping tcp://127.0.0.1:9000
  heartwheel ping -c 10 -i 200ms tcp://127.0.0.1:9000
  heartwheel ping -c 1 -W 1s --connect-timeout 1s tcp://10.0.0.1:9000 && echo alive`,
	}
	f := newClientFlags(cmd)
	f.add("count", "c", "number", "0", "beats to send; 0: until SIGINT")
	f.add("interval", "i", "duration", "1s", "time from one beat to the next")
	f.add("wait", "W", "duration", "10s", "time to wait for an answer; after it the beat is lost")
	f.add("token", "", "text", "", "proves who this is, sent in HELLO")
	f.add("connect-timeout", "", "duration", "10s", "time that one attempt to connect may take")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p := &pinger{
			out: cmd.OutOrStdout(), count: f.count("count"),
			every: f.duration("interval", 10*time.Millisecond, 24*time.Hour), wait: f.duration("wait", time.Millisecond, 10*time.Minute),
			events: make(chan client.Event, 4), answers: make(chan answer), over: make(chan struct{}),
		}
		cfg := client.Config{Token: f.text("token"), ConnectTimeout: f.duration("connect-timeout", time.Millisecond, time.Hour), OnState: p.onState}
		if err := f.err(); err != nil {
			return err
		}
		signals, stop := endSignals()
		defer stop()
		var err error
		if p.client, err = f.dial(signals, args[0], cfg); err != nil {
			return err
		}
		began := time.Now()
		err = p.run(signals)
		close(p.over)
		fmt.Fprint(p.out, p.tally.summary(args[0], time.Since(began)))
		return errors.Join(err, hangUp(p.client, signals))
	}
	return cmd
}

// A pinger beats, and writes what comes of it. Its fields belong to the
// goroutine of run.
type pinger struct {
	client      *client.Client
	out         io.Writer
	count       int // 0: no end
	every, wait time.Duration

	events  chan client.Event // has room for those of Dial
	answers chan answer
	over    chan struct{} // closed when nobody reads from the two any more

	addr   string          // of the present connection
	link   context.Context // ends with the present connection; nil: there is none
	unlink context.CancelFunc
	last   <-chan struct{} // closed when what came of the last beat was handed over; nil: there was none
	tally  tally
}

// An answer is what came of one beat.
type answer struct {
	seq int
	rtt time.Duration
	err error // nil: it was answered
}

var errNotConnected = errors.New("not connected")

func (p *pinger) onState(e client.Event) {
	select {
	case p.events <- e:
	case <-p.over:
	}
}

// run beats until count beats are over, a signal comes, or the server wants
// no more of it, which is an error, as it is when nothing was answered.
func (p *pinger) run(signals <-chan os.Signal) error {
	for p.link == nil {
		p.event(<-p.events) // Dial has returned: connected is among them
	}
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	due := ticker.C
	p.beat()
loop:
	for p.count == 0 || p.tally.answered+p.tally.lost < p.count {
		if p.tally.sent == p.count {
			due = nil
		}
		select {
		case <-due:
			p.beat()
		case a := <-p.answers:
			p.take(a)
		case e := <-p.events:
			if p.event(e); e.State == client.Ended {
				return &settings.Failure{Err: errors.New("the server has ended it for good"), Logged: true}
			}
		case <-signals:
			break loop
		}
	}
	if p.tally.answered == 0 {
		return &settings.Failure{Err: errors.New("no beat was answered"), Logged: true}
	}
	return nil
}

// event says what has become of the connection. Beats that are under way do not
// outlive it: they must not be sent on the next one.
func (p *pinger) event(e client.Event) {
	if p.unlink != nil {
		p.unlink()
		p.link, p.unlink = nil, nil
	}
	switch e.State {
	case client.Connecting:
		return // said already: by the user, or with the loss
	case client.Connected:
		p.addr = e.Addr
		p.link, p.unlink = context.WithCancel(context.Background())
	}
	fmt.Fprintln(p.out, visible([]byte(e.String())))
}

// beat sends the next beat. Without a connection it is lost at once.
func (p *pinger) beat() {
	p.tally.sent++
	seq := p.tally.sent
	if p.link == nil {
		p.take(answer{seq: seq, err: errNotConnected})
		return
	}
	ctx, cancel := context.WithTimeout(p.link, p.wait)
	before, done := p.last, make(chan struct{})
	p.last = done
	go func() {
		defer cancel()
		defer close(done)
		rtt, err := p.client.Beat(ctx)
		if before != nil { // two answers may come at once: they are shown in order
			<-before
		}
		select {
		case p.answers <- answer{seq, rtt, err}:
		case <-p.over:
		}
	}()
}

// take counts and shows what came of a beat.
func (p *pinger) take(a answer) {
	if a.err == nil {
		p.tally.add(a.rtt)
		fmt.Fprintf(p.out, "answer from %s: seq=%d time=%s ms\n", p.addr, a.seq, milliseconds(a.rtt))
		return
	}
	p.tally.lost++
	why := "connection lost"
	switch {
	case errors.Is(a.err, context.DeadlineExceeded):
		why = "after " + wording.Duration(p.wait)
	case a.err == errNotConnected:
		why = a.err.Error()
	}
	fmt.Fprintf(p.out, "no answer from %s: seq=%d %s\n", p.addr, a.seq, why)
}

// A tally counts beats, and sums up their round-trip times in the way of
// Welford, which keeps its precision.
type tally struct {
	sent, answered, lost int
	min, max             time.Duration
	mean                 float64 // ns
	squares              float64 // sum of the squared differences from the mean, ns²
}

// add counts an answer.
func (t *tally) add(rtt time.Duration) {
	t.answered++
	if t.answered == 1 {
		t.min = rtt
	}
	t.min, t.max = min(t.min, rtt), max(t.max, rtt)
	off := float64(rtt) - t.mean
	t.mean += off / float64(t.answered)
	t.squares += off * (float64(rtt) - t.mean)
}

// stddev is the standard deviation of all times: what ping(8) calls mdev.
func (t *tally) stddev() time.Duration {
	return time.Duration(math.Sqrt(t.squares / float64(max(1, t.answered))))
}

// summary is the end of the output. A beat that could still be answered is
// neither answered nor lost.
func (t *tally) summary(url string, took time.Duration) string {
	over := t.answered + t.lost
	text := fmt.Sprintf("\n--- %s ---\n%d beats, %d answered, %.6g%% lost", url, t.sent, t.answered, 100*float64(t.lost)/float64(max(1, over)))
	if open := t.sent - over; open > 0 {
		text += fmt.Sprintf(", %d under way", open)
	}
	text += fmt.Sprintf(", time %s\n", took.Round(time.Millisecond))
	if t.answered > 0 {
		text += fmt.Sprintf("rtt min/avg/max/stddev = %s/%s/%s/%s ms\n",
			milliseconds(t.min), milliseconds(time.Duration(t.mean)), milliseconds(t.max), milliseconds(t.stddev()))
	}
	return text
}

// milliseconds writes d as ping(8) does.
func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.3f", float64(d)/float64(time.Millisecond))
}
