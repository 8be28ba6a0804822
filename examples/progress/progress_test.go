package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestProgress runs the program as a user does: its progress line is redrawn while it
// waits, and a cancel ends the wait at once.
func TestProgress(t *testing.T) {
	program := filepath.Join(t.TempDir(), "progress")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%s\n%s", err, out)
	}
	lag := measureLag()
	out, err := exec.CommandContext(t.Context(), program).CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%s", err, out)
	}
	late := lag()
	text := strings.ReplaceAll(string(out), "\r", "\n")
	first, second, ok := strings.Cut(text, "answer \"hello\", err <nil>, after ")
	if !ok {
		t.Fatalf("the slow answer is missing in\n%s", text)
	}
	// 29 in 3 s; fewer if the machine pauses.
	waiting := regexp.MustCompile(`(?m)^[|/\\-] waiting for \d+\.\d s $`)
	if n := len(waiting.FindAllString(first, -1)); n < 10 && late < time.Second {
		t.Errorf("%d updates while it waited for 3 s, want at least 10; the machine was late by %s at most\n%s", n,
			late, text)
	}
	if n := len(waiting.FindAllString(second, -1)); n < 3 && late < 500*time.Millisecond {
		t.Errorf("%d updates in the second before the cancel, want at least 3; the machine was late by %s at most\n%s",
			n, late, text)
	}
	cancelled := regexp.MustCompile(`(?m)^cancelled: context canceled, returned (\d+\.\d\d) ms after the cancel$`)
	m := cancelled.FindStringSubmatch(second)
	if m == nil {
		t.Fatalf("the cancel is missing in\n%s", text)
	}
	// At once is within 10 ms. Not cancelled, the wait would last for 2 s more.
	after, err := strconv.ParseFloat(m[1], 64)
	if limit := 10 + late.Seconds()*1000; err != nil || after > limit {
		t.Errorf("returned %s ms after the cancel, want at most %.2f: the machine was late by %s at most", m[1],
			limit, late)
	}
}

// measureLag measures how late this process runs at most, until its result is called.
func measureLag() func() time.Duration {
	const every = time.Millisecond
	stop, most := make(chan struct{}), make(chan time.Duration, 1)
	go func() {
		lag, last := time.Duration(0), time.Now()
		for {
			select {
			case <-stop:
				most <- lag
				return
			case <-time.After(every):
			}
			now := time.Now()
			lag, last = max(lag, now.Sub(last)-every), now
		}
	}()
	return func() time.Duration { close(stop); return <-most }
}
