// Package client keeps one connection to a heartwheel server, or to any server
// that speaks its wire, alive: it beats, notices when the server is dead,
// connects again, and lets the program that waits for it breathe.
//
//	c, err := client.Dial(ctx, "tcp://127.0.0.1:9000", client.Config{})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	err = c.Send(ctx, []byte("hello"))
//	reply, err := c.Receive(ctx, nil)
//
// # Two clocks
//
// What this side has sent last says when it has to beat again: after H of its
// own silence, H being the interval that the server decides. Any frame is as
// good as a beat. What it has heard last says whether the server lives: sending
// never proves that. When the server has been silent for H, a beat asks it; if
// 10 s after that was handed to the kernel not one byte has come, the server is
// dead: the connection is aborted and made anew.
//
// # Reconnecting
//
// The first delay after a loss is spread over the window that the server named
// in its WELCOME, so that a restarted server is not met by everybody at once.
// Then it grows from 0.5 s to 30 s, each with full jitter, until a connection
// has lasted for 30 s. GOAWAY's after_ms and addr are obeyed. Codes from 3500 to
// 3999 and from 4500 to 4999 end the client for good.
//
// What was sent is delivered at most once: what a lost connection had not
// delivered is not sent again, and a Request that was under way fails.
//
// # Waiting without freezing
//
// While a call waits, Config.OnHeartbeat is called every Config.HeartbeatRate in
// the goroutine of the caller, so that a program whose only thread is its user
// interface can repaint. When the call's context ends, the call ends at once.
// The idea and the two names are those of the Synapse library for Pascal.
//
// # Cost
//
// An idle connection costs one goroutine, which reads. Beats and received
// frames allocate nothing.
package client
