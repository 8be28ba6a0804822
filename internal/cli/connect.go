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
		Short: "Send lines to a server and print its replies",
		Long: `Connects to a heartbeat server, sends heartbeats, and reconnects when the
connection is lost. Each line of the input is sent as DATA, and each DATA from
the server is printed as a line, with control characters escaped. Lines wait
while there is no connection.

On a terminal replies begin with <, messages about the connection with *, and
the last row is a status line. If a reply arrives while you type, Ctrl-R shows
your line again. Elsewhere replies go to standard output and messages to
standard error. After the end of the input it waits until the server has read
everything and no reply has arrived for 1s, then closes the connection. Ctrl-C
closes it at once; a second Ctrl-C exits without waiting.

URL is tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/path,
wss://HOST:PORT/path or unix:///PATH. --ca, --cert, --key and --server-name are
for tls:// and wss://.

The token that HELLO carries is the one of --token, otherwise the content of
--token-file without its last line break, otherwise that of HEARTWHEEL_TOKEN.
--token can be seen in the list of processes. A regular file is read again for
each connection.

Exits 0 after the end of the input or a signal; 1 if it could not connect, if
the server said not to reconnect or refused a line, or if the connection was
lost before the server had read everything; 64 for wrong usage.`,
		Example: `  heartwheel connect tcp://127.0.0.1:9000
  heartwheel connect --device kiosk-7 --beat 3s tcp://127.0.0.1:9000
  heartwheel connect --token-file token wss://example.com/heartbeat
  seq 3 | heartwheel connect tcp://127.0.0.1:9000`,
	}
	f := newClientFlags(cmd)
	f.addToken()
	f.addTLS()
	f.add("device", "", "text", "", "device name to send in HELLO")
	f.add("beat", "", "duration", "", "beat interval to request; the server decides (default: the server's)")
	serverBeats := cmd.Flags().Bool("server-beats", false, "ask the server to send the beats")
	f.add("connect-timeout", "", "duration", "10s", "time limit of an attempt to connect")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s := &lineSession{
			term:         newTerminal(cmd.OutOrStdout(), cmd.ErrOrStderr(), slices.Contains(environ, "TERM=dumb")),
			replied:      make(chan struct{}, 1),
			stateChanged: make(chan struct{}, 1),
		}
		cfg := client.Config{
			Device: f.text("device"), ServerBeats: *serverBeats,
			Beat:           f.duration("beat", time.Millisecond, 24*time.Hour),
			ConnectTimeout: f.duration("connect-timeout", time.Millisecond, time.Hour),
			OnState:        s.onState, OnData: s.onData, OnError: s.onError,
		}
		f.setToken(&cfg, environ)
		f.setTLS(&cfg, args[0])
		if err := f.err(); err != nil {
			return err
		}
		signals, stop := notifySignals()
		defer stop()
		c, err := f.dial(signals, args[0], cfg)
		if err != nil {
			return err
		}
		s.client = c
		s.term.openStatus()
		defer s.term.closeStatus()
		err = s.run(cmd.InOrStdin(), signals)
		return errors.Join(err, closeClient(c, signals))
	}
	return cmd
}

// A lineSession sends the lines of the input over a connection and prints the
// replies.
type lineSession struct {
	client       *client.Client
	term         *terminal
	replied      chan struct{} // has a token when DATA has arrived
	stateChanged chan struct{} // has a token when state has changed
	state        atomic.Pointer[stateChange]
	refused      atomic.Bool  // a line was not sent, or the server refused one
	lost         atomic.Bool  // a connection ended before the server had certainly read its lines
	connects     atomic.Int64 // connections so far
}

// A stateChange is a client.Event and its time.
type stateChange struct {
	client.Event
	at time.Time
}

// quietTime is how long to wait for another reply once the server has read all
// of the input.
const quietTime = time.Second

// redrawEvery is the time between updates of the status line.
const redrawEvery = 250 * time.Millisecond

func (s *lineSession) onState(e client.Event) {
	s.state.Store(&stateChange{e, time.Now()})
	if e.State == client.Connected {
		s.connects.Add(1)
	}
	if e.State == client.Waiting || e.State == client.Connected || errors.Is(e.Err, client.ErrClosed) {
		s.term.message("%s", e) // the status line shows the others, or they end the command
	}
	putToken(s.stateChanged)
}

func (s *lineSession) onData(payload []byte) {
	s.term.reply(payload)
	putToken(s.replied)
}

func (s *lineSession) onError(err *client.CodeError) {
	s.refused.Store(true)
	s.term.message("%s; the connection stays open", err)
}

// putToken puts a token into c, which has room for one.
func putToken(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run returns at the end of the input and its replies, a signal, or the end of the
// client.
func (s *lineSession) run(in io.Reader, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- s.send(ctx, in) }()

	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	redraw := time.NewTicker(redrawEvery)
	defer redraw.Stop()
	quiet := time.NewTimer(quietTime)
	quiet.Stop()
	allSent := false
	for {
		s.term.setStatus(statusLine(s.state.Load(), s.client.Beats(), time.Now()))
		select {
		case <-redraw.C:
		case <-s.stateChanged:
		case <-resized:
			s.term.openStatus()
		case <-s.replied:
			if allSent {
				quiet.Reset(quietTime)
			}
		case err := <-sent:
			if err != nil {
				return err
			}
			allSent = true
			quiet.Reset(quietTime)
		case <-quiet.C:
			return s.result()
		case <-s.client.Done():
			return clientFailure(s.client.Err())
		case <-signals:
			return nil
		}
	}
}

// errLost is the failure when the server may not have read all of the input.
var errLost = errors.New("the connection was lost before the server confirmed all lines: " +
	"some may not have been delivered")

// result returns what became of the input after its end.
func (s *lineSession) result() error {
	switch {
	case s.lost.Load() || s.client.State() != client.Connected:
		return &settings.Failure{Err: errLost}
	case s.refused.Load():
		return &settings.Failure{Err: errors.New("not every line was accepted"), Logged: true}
	}
	return nil
}

// send sends the lines of in, and returns when the server has read them, or when
// ctx or the client ends, which run reports.
func (s *lineSession) send(ctx context.Context, in io.Reader) error {
	var connection int64 // of the line before; 0: none
	checkConnection := func() {
		now := s.connects.Load()
		if connection != 0 && connection != now {
			s.lost.Store(true)
		}
		connection = now
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, codec.MaxFrameLimit)
	for lines.Scan() {
		err := s.client.Send(ctx, lines.Bytes())
		switch {
		case errors.Is(err, client.ErrFrameTooLarge):
			s.refused.Store(true)
			s.term.message("not sent: %s", strings.TrimPrefix(err.Error(), "client: "))
		case err != nil:
			<-ctx.Done()
			return nil
		default:
			checkConnection()
		}
	}
	if err := lines.Err(); err != nil {
		return &settings.Failure{Err: fmt.Errorf("cannot read the input: %w", err)}
	}
	// The server answers in order: a beat answered on the connection of the lines
	// confirms them.
	if _, err := s.client.Beat(ctx); err != nil {
		s.lost.Store(true)
	}
	checkConnection()
	return nil
}

// statusLine describes the connection's state.
func statusLine(s *stateChange, b client.Beats, now time.Time) string {
	switch {
	case s.State == client.Waiting:
		left := max(0, s.In-now.Sub(s.at)).Round(100 * time.Millisecond)
		return fmt.Sprintf("not connected | connecting to %s in %s", s.Addr, left)
	case s.State != client.Connected || b.Interval == 0: // lost, but not reported yet
		return fmt.Sprintf("%s | %s", s.State, s.Addr)
	}
	text := fmt.Sprintf("connected %s | beat %s | sent %s, received %s", s.Addr,
		wording.Duration(b.Interval), wording.Grouped(int64(b.Sent)), wording.Grouped(int64(b.Answered)))
	if b.RTT > 0 {
		text += ", rtt " + b.RTT.Round(time.Microsecond).String()
	}
	return text
}
