package examples

import (
	"net"
	"os/exec"
	"syscall"
	"testing"
)

// A client with Erlang's own framings, which cannot change, is served, beats and hears
// of the end.
func TestForeignErlang(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("escript"); err != nil {
		if *requireLanguages {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for _, one := range []struct {
		name, packet, hello, answer string
		args                        []string
	}{
		{"packet 4", "4", `got <<"hello">>`, `got <<>>`,
			[]string{"--framing", "length-field", "--beat-message", "", "--answer-message", ""}},
		{"packet 2", "2", `got <<"hello">>`, `got <<"yes">>`,
			[]string{"--framing", "length-field", "--length-width", "2", "--beat-message", `""`,
				"--answer-message", "yes"}},
		{"line", "line", `got <<"hello\n">>`, `got <<"PONG\n">>`,
			[]string{"--framing", "lines", "--beat-message", "PING", "--answer-message", "PONG"}},
		{"line, the server beats", "line", `got <<"hello\n">>`, "",
			[]string{"--framing", "lines", "--beats", "server", "--beat-message", "PING", "--ping-message", "PING"}},
	} {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			lag := measureLag(t)
			s := startServer(t, "127.0.0.1:0", append([]string{"--beat", beat.String(), "--timeout", timeout.String(),
				"--drain", "1s"}, one.args...)...)
			host, port, err := net.SplitHostPort(s.addr)
			if err != nil {
				t.Fatal(err)
			}
			c := start(t, "escript", "testdata/fleet.erl", one.packet, host, port)
			c.await(&c.out, one.hello, 1)
			if one.answer != "" {
				c.await(&c.out, one.answer, 3)
			}
			m := s.awaitMetric(`heartwheel_frames_total{direction="in",op="beat"}`, 20) // longer than the timeout
			wantAlive(t, m, lag.lag())
			if m[`heartwheel_closed_total{reason="protocol_error"}`] != 0 || m[`heartwheel_accepted_total`] != 1 {
				t.Errorf("%v", m)
			}
			s.signal(syscall.SIGTERM)
			c.await(&c.out, "closed", 1)
			if code := s.wait(); code != 0 {
				t.Errorf("the server ended with %d", code)
			}
		})
	}
}
