package cli

import (
	"errors"
	"testing"
	"time"

	"heartwheel/client"
)

func TestStatusLine(t *testing.T) {
	at := time.Now()
	event := func(s client.State) *stateChange {
		return &stateChange{client.Event{State: s, Addr: "h:1", Err: errors.New("gone"), In: 3 * time.Second}, at}
	}
	beats := client.Beats{Interval: 15 * time.Second, Timeout: 37500 * time.Millisecond, Sent: 1234, Answered: 1233}
	timed := beats
	timed.RTT = 151300 * time.Nanosecond
	for _, c := range []struct {
		event *stateChange
		beats client.Beats
		after time.Duration
		want  string
	}{
		{event(client.Connected), beats, 0, "connected h:1 | beat 15s | sent 1,234, received 1,233"},
		{event(client.Connected), timed, 0, "connected h:1 | beat 15s | sent 1,234, received 1,233, rtt 151µs"},
		{event(client.Connected), client.Beats{}, 0, "connected | h:1"}, // lost, but not reported yet
		{event(client.Connecting), client.Beats{}, 0, "connecting | h:1"},
		{event(client.Waiting), client.Beats{}, 1260 * time.Millisecond, "not connected | connecting to h:1 in 1.7s"},
		{event(client.Waiting), client.Beats{}, time.Minute, "not connected | connecting to h:1 in 0s"},
		{event(client.Ended), client.Beats{}, 0, "ended | h:1"},
	} {
		if got := statusLine(c.event, c.beats, at.Add(c.after)); got != c.want {
			t.Errorf("%s after %s: got %q, want %q", c.event.State, c.after, got, c.want)
		}
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"a\tb \u00a0ü 日本 👩\u200d🚀": "a\tb \u00a0ü 日本 👩\u200d🚀",
		"\x1b[2J\x07\x00\x7f":      `\x1b[2J\x07\x00\x7f`,
		"one\r\ntwo":               `one\r\ntwo`,
		"\u009b31m\u0085":          `\u009b31m\u0085`, // C1: one-character forms of ESC [ and of a new line
		"abc\u202edef\u2066":       `abc\u202edef\u2066`,
		"\u2028\ufeff":             `\u2028\ufeff`,
		"\U000e0001":               `\U000e0001`,
		"\xff\xc3":                 `\xff\xc3`,
		"\ufffd":                   "\ufffd",
	} {
		if got := visible([]byte(in)); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}
