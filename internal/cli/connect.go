package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"heartwheel/client"
	"heartwheel/codec"
	"heartwheel/internal/settings"
	"heartwheel/internal/wording"
)

func newConnect(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "connect URL",
		Short: "Type lines to a server and see its replies; the connection is kept alive",
		Long: `Connects to a heartbeat server and keeps the connection alive: it beats, and
connects again when it is lost. Each line that is typed goes out as DATA, and
each DATA that comes is shown as a line; control characters are escaped. A line
that is typed while there is no connection waits for the next.

On a terminal replies begin with <, what happens to the connection with *, and
the last row is a status line. A reply may come while you type: Ctrl-R shows
again what you have typed. Otherwise replies go to standard output, one a line,
and all else to standard error. After the end of the input it waits until the
server has read all of it and no reply has come for 1s, then it closes the
connection. Ctrl-C closes it at once, in order; a second one does not wait.

Exits 0 after the end of the input or a signal; 1 if there was no connection, if
the server said not to come back, or refused a line, or the connection was lost
before the server had read all; 2 for wrong usage.`,
		Example: `  heartwheel connect tcp://127.0.0.1:9000
  heartwheel connect --device kiosk-7 --beat 3s tcp://127.0.0.1:9000
  seq 3 | heartwheel connect tcp://127.0.0.1:9000`,
	}
	f := newClientFlags(cmd)
	f.add("token", "", "text", "", "proves who this is, sent in HELLO")
	f.add("device", "", "text", "", "name of this device, sent in HELLO")
	f.add("beat", "", "duration", "", "beat interval to wish for; the server decides (default: the server's)")
	serverBeats := cmd.Flags().Bool("server-beats", false, "ask the server to beat; this side answers")
	f.add("connect-timeout", "", "duration", "10s", "time that one attempt to connect may take")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t := &talk{
			screen:  newScreen(cmd.OutOrStdout(), cmd.ErrOrStderr(), slices.Contains(environ, "TERM=dumb")),
			heard:   make(chan struct{}, 1),
			changed: make(chan struct{}, 1),
		}
		cfg := client.Config{
			Token: f.text("token"), Device: f.text("device"), ServerBeats: *serverBeats,
			Beat:           f.duration("beat", time.Millisecond, 24*time.Hour),
			ConnectTimeout: f.duration("connect-timeout", time.Millisecond, time.Hour),
			OnState:        t.onState, OnData: t.onData, OnError: t.onError,
		}
		if err := f.err(); err != nil {
			return err
		}
		signals, stop := endSignals()
		defer stop()
		c, err := f.dial(signals, args[0], cfg)
		if err != nil {
			return err
		}
		t.client = c
		t.screen.open()
		defer t.screen.close()
		err = t.run(cmd.InOrStdin(), signals)
		return errors.Join(err, hangUp(c, signals))
	}
	return cmd
}

// A talk is a connection that a person types into.
type talk struct {
	client  *client.Client
	screen  *screen
	heard   chan struct{} // has a token when DATA has come
	changed chan struct{} // has a token when state has changed
	state   atomic.Pointer[moment]
	refused atomic.Bool  // a line was not sent, or the server refused one
	lost    atomic.Bool  // a connection ended before the server was known to have read its lines
	conns   atomic.Int64 // so many connections there have been
}

// A moment is a change of state and when it was.
type moment struct {
	client.Event
	at time.Time
}

// silence is how long no reply may have come after the end of the input, which
// the server has read up to there.
const silence = time.Second

// redraw is how often the status line is.
const redraw = 250 * time.Millisecond

func (t *talk) onState(e client.Event) {
	t.state.Store(&moment{e, time.Now()})
	if e.State == client.Connected {
		t.conns.Add(1)
	}
	if e.State == client.Waiting || e.State == client.Connected || errors.Is(e.Err, client.ErrClosed) {
		t.screen.say("%s", e) // the others are in the status line, or end the command
	}
	wake(t.changed)
}

func (t *talk) onData(payload []byte) {
	t.screen.reply(payload)
	wake(t.heard)
}

func (t *talk) onError(err *client.CodeError) {
	t.refused.Store(true)
	t.screen.say("%s; the connection stays", err)
}

func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run talks until the end of the input, a signal, or the end of the client.
func (t *talk) run(in io.Reader, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- t.send(ctx, in) }()

	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	ticker := time.NewTicker(redraw)
	defer ticker.Stop()
	quiet := time.NewTimer(silence)
	quiet.Stop()
	over := false
	for {
		t.screen.show(statusLine(t.state.Load(), t.client.Beats(), time.Now()))
		select {
		case <-ticker.C:
		case <-t.changed:
		case <-resized:
			t.screen.open()
		case <-t.heard:
			if over {
				quiet.Reset(silence)
			}
		case err := <-sent:
			if err != nil {
				return err
			}
			over = true
			quiet.Reset(silence)
		case <-quiet.C:
			return t.end()
		case <-t.client.Done():
			return clientFailure(t.client.Err())
		case <-signals:
			return nil
		}
	}
}

// end judges a talk whose input is over.
func (t *talk) end() error {
	switch {
	case t.lost.Load() || t.client.State() != client.Connected:
		return &settings.Failure{Err: errors.New("the connection was lost before the server was known to have read all lines: some may not have been delivered")}
	case t.refused.Load():
		return &settings.Failure{Err: errors.New("not every line was accepted"), Logged: true}
	}
	return nil
}

// send sends each line of in, and waits until the server has read them. It ends
// then, or with ctx or the client, which others report.
func (t *talk) send(ctx context.Context, in io.Reader) error {
	var on int64 // the connection of the last line; 0: there was none
	goOn := func() {
		now := t.conns.Load()
		if on != 0 && on != now {
			t.lost.Store(true)
		}
		on = now
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, codec.MaxFrameLimit)
	for lines.Scan() {
		err := t.client.Send(ctx, lines.Bytes())
		switch {
		case errors.Is(err, client.ErrFrameTooLarge):
			t.refused.Store(true)
			t.screen.say("not sent: %s", strings.TrimPrefix(err.Error(), "client: "))
		case err != nil:
			<-ctx.Done()
			return nil
		default:
			goOn()
		}
	}
	if err := lines.Err(); err != nil {
		return &settings.Failure{Err: fmt.Errorf("the input cannot be read: %w", err)}
	}
	// A server answers in order: with this one it has had all lines, if it answers
	// on their connection.
	if _, err := t.client.Beat(ctx); err != nil {
		t.lost.Store(true)
	}
	goOn()
	return nil
}

// statusLine says how the connection is.
func statusLine(m *moment, b client.Beats, now time.Time) string {
	switch {
	case m.State == client.Waiting:
		left := max(0, m.In-now.Sub(m.at)).Round(100 * time.Millisecond)
		return fmt.Sprintf("not connected | connecting to %s in %s", m.Addr, left)
	case m.State != client.Connected || b.Interval == 0: // the loss is not said yet
		return fmt.Sprintf("%s | %s", m.State, m.Addr)
	}
	text := fmt.Sprintf("connected %s | beat %s | sent %s, received %s", m.Addr,
		wording.Duration(b.Interval), wording.Grouped(int64(b.Sent)), wording.Grouped(int64(b.Answered)))
	if b.RTT > 0 {
		text += ", rtt " + b.RTT.Round(time.Microsecond).String()
	}
	return text
}
