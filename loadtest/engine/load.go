package engine

import (
	"time"

	"heartwheel/internal/edge/websocket"
)

// A Load is what the connections of a run do. It travels to worker processes as
// JSON.
type Load struct {
	Connections int
	Processes   int           // of the generator, 1 or more
	Loops       int           // event loops of each process, 1 or more
	Duration    time.Duration // of the hold phase, which begins when every connection was tried

	ConnectRate    Rate
	ConnectTimeout time.Duration // for the connection, with TLS handshake, upgrade and, with Hello, WELCOME

	Scheme     string                  // of the target; empty: SchemeTCP
	CA         string                  // TLS: file with authorities; empty: those of the machine
	Insecure   bool                    // TLS: any certificate is right
	Cert, Key  string                  // TLS: files of the clients' own certificate; empty: none
	ServerName string                  // TLS: that the certificate is for
	Request    websocket.ClientRequest // WebSocket
	Framing    Framing

	Mode        string        // ModeBeat, ModeEcho or ModeChurn
	Interval    time.Duration // beat: between two beats of a connection
	ServerBeats bool          // beat: the server beats and the generator only answers; implied by HelloBeats "server"
	Phase       string        // beat: PhaseUniform or PhaseSync
	Frame       string        // beat, churn: FrameEmpty or FramePing
	Inflight    int           // echo: frames under way on each connection
	Payload     int           // echo: bytes in a frame after the op, MinPayload or more

	Hello       bool // every connection begins with HELLO
	HelloBeat   time.Duration
	HelloBeats  string // "client", "server" or empty: the server decides
	HelloDevice string // each connection's number is added
	HelloToken  string

	Timeout        time.Duration // T of the server; 0: what the server says
	Bound          time.Duration // how late a dead peer may be detected
	PartialTimeout time.Duration // how long part of a frame may stay incomplete
	Faults         []Fault
	Seed           uint64 // of the choice of connections for faults
	ExpectDrain    bool   // the server drains during the run: 3001 is no unexplained close
}

// The words of Mode, Phase and Frame.
const (
	ModeBeat  = "beat"
	ModeEcho  = "echo"
	ModeChurn = "churn"

	PhaseUniform = "uniform"
	PhaseSync    = "sync"

	FrameEmpty = "empty"
	FramePing  = "ping"
)

// ConnectTime is how long the connects take at their rate. In mode churn they
// take the whole hold phase.
func (l *Load) ConnectTime() time.Duration { return l.connects().over }

// connects is how connects are paced.
func (l *Load) connects() ramp {
	if l.Mode == ModeChurn {
		return ramp{l.ConnectRate, l.Duration}
	}
	return rampOf(l.ConnectRate, l.Connections)
}

// beats is how beats are paced.
func (l *Load) beats() pacer {
	if l.Phase == PhaseSync {
		return synchronous{int64(l.Connections), l.Interval}
	}
	return uniform{int64(l.Connections), l.Interval}
}

// serverBeats says whether the server is the side that beats.
func (l *Load) serverBeats() bool { return l.ServerBeats || l.HelloBeats == "server" }

// StallsServer says whether the server's process is stopped for a time.
func (l *Load) StallsServer() bool {
	for _, f := range l.Faults {
		if f.Kind == StallServer {
			return true
		}
	}
	return false
}

// Lead is how long before a phase begins the loops learn of it.
func (l *Load) Lead() time.Duration {
	if l.Processes > 1 {
		return 200 * time.Millisecond
	}
	return 30 * time.Millisecond
}
