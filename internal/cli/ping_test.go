package cli

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"heartwheel/client"
	"heartwheel/codec"
)

func TestPingStats(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		rtts       []time.Duration
		sent, lost int
		want       string
	}{
		{nil, 0, 0, "0 beats, 0 answered, 0% lost, time 1.235s\n"},
		{nil, 2, 2, "2 beats, 0 answered, 100% lost, time 1.235s\n"},
		{[]time.Duration{150 * time.Microsecond}, 1, 0,
			"1 beats, 1 answered, 0% lost, time 1.235s\nrtt min/avg/max/stddev = 0.150/0.150/0.150/0.000 ms\n"},
		// Mean 5, sum of squared differences 32, over 8 values: the deviation is 2.
		{[]time.Duration{2 * ms, 4 * ms, 4 * ms, 4 * ms, 5 * ms, 5 * ms, 7 * ms, 9 * ms}, 12, 4,
			"12 beats, 8 answered, 33.3333% lost, time 1.235s\nrtt min/avg/max/stddev = 2.000/5.000/9.000/2.000 ms\n"},
		// A pending beat is neither answered nor lost.
		{[]time.Duration{time.Hour, time.Hour + ms}, 4, 1,
			"4 beats, 2 answered, 33.3333% lost, 1 pending, time 1.235s\n" +
				"rtt min/avg/max/stddev = 3600000.000/3600000.500/3600001.000/0.500 ms\n"},
	} {
		s := pingStats{sent: c.sent, lost: c.lost}
		for _, rtt := range c.rtts {
			s.add(rtt)
		}
		if got, want := s.summary("tcp://h:1", 1234567*time.Microsecond), "\n--- tcp://h:1 ---\n"+c.want; got != want {
			t.Errorf("%v: got\n%s\nwant\n%s", c.rtts, got, want)
		}
	}
}

// TestPingInOrder: answers that arrive at once are printed in the order of their
// beats.
func TestPingInOrder(t *testing.T) {
	const beats = 50
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r, hello := bufio.NewReader(c), make([]byte, codec.HeaderSize)
		_, _ = io.ReadFull(r, hello)
		_, _ = r.Discard(int(binary.BigEndian.Uint32(hello)))
		_, _ = c.Write(codec.AppendWelcome(nil, codec.Welcome{Session: "s", BeatMS: 60_000, TimeoutMS: 150_000}))
		_, _ = io.ReadFull(r, make([]byte, beats*codec.HeaderSize))
		_, _ = c.Write(make([]byte, beats*codec.HeaderSize))
		_, _ = io.Copy(io.Discard, r)
	}()
	var out strings.Builder
	p := &pinger{out: &out, count: beats, interval: time.Millisecond, wait: time.Minute,
		events: make(chan client.Event, 4), results: make(chan beatResult), done: make(chan struct{})}
	defer close(p.done)
	p.client, err = client.Dial(t.Context(), "tcp://"+ln.Addr().String(), client.Config{OnState: p.onState})
	if err != nil {
		t.Fatal(err)
	}
	defer p.client.Close()
	if err := p.run(nil); err != nil {
		t.Fatal(err)
	}
	for i, m := range regexp.MustCompile(`seq=(\d+) time=`).FindAllStringSubmatch(out.String(), -1) {
		if m[1] != strconv.Itoa(i+1) {
			t.Fatalf("answer %d is shown as number %s:\n%s", i+1, m[1], &out)
		}
	}
	if p.stats.answered != beats {
		t.Errorf("%d of %d beats were answered", p.stats.answered, beats)
	}
}
