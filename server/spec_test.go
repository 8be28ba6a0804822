package server

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"heartwheel/codec"
)

// TestSpec compares the times and limits in codec/SPEC.md with the code.
func TestSpec(t *testing.T) {
	b, err := os.ReadFile("../codec/SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(b)), " ") // sentences may be wrapped
	def := Config{}.WithDefaults()
	want := []string{
		fmt.Sprintf("H is at least %s and at most 1 h, T at most 3 h", seconds(MinBeat)),
		fmt.Sprintf("incomplete for %s from its first byte", seconds(incompleteLimit)),
		fmt.Sprintf("requires HELLO waits %s for it", seconds(incompleteLimit)),
		fmt.Sprintf("less than %d KiB of it within %s or 0.8 × T, whichever is shorter", stallBytes>>10,
			seconds(writeStallMost)),
		fmt.Sprintf("gives its peer %s to take the output", seconds(closeGrace)),
		"T is 2.5 × H unless it is set",
		"caps H at two thirds of it",
		"refuse to start with a T below 1.5 × H",
	}
	for _, p := range Profiles {
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s to %s |",
			p.Name, seconds(p.Beat), seconds(p.Beat*5/2), seconds(p.BeatMin), seconds(p.BeatMax)))
	}
	for _, s := range want {
		if !strings.Contains(text, s) {
			t.Errorf("SPEC.md does not say %q", s)
		}
	}
	if MaxBeat != time.Hour || MaxTimeout != 3*time.Hour {
		t.Errorf("SPEC.md says 1 h and 3 h for MaxBeat %s and MaxTimeout %s", MaxBeat, MaxTimeout)
	}
	if beat, timeout := def.decide(0); timeout != beat*5/2 {
		t.Errorf("H = %s has T = %s, not 2.5 times as much", beat, timeout)
	}
	set := Config{Timeout: 3 * time.Second}.WithDefaults()
	if beat, _ := set.decide(time.Minute); beat != 2*time.Second {
		t.Errorf("T = 3 s caps H at %s, not at two thirds", beat)
	}
}

// seconds writes d as SPEC.md does: 500 ms, 37.5 s.
func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s"
}

// TestReasonsAreCodes: a reason whose word is that of a code has that code, so
// that log, metrics and wire name one thing by one word.
func TestReasonsAreCodes(t *testing.T) {
	words := map[string]codec.Code{}
	for c := codec.Code(3000); c < 4000; c++ {
		words[c.String()] = c
	}
	local := map[Reason]bool{ // these have no code of their own
		PeerReset: true, PeerTimeout: true, ReadError: true, Application: true, EngineStopped: true, HelloLimit: true,
		Shed: true, AuthBusy: true,
	}
	for r := range numReasons {
		code, known := words[r.String()]
		switch {
		case known == local[r]:
			t.Errorf("%s: is the word of a code: %v; wanted the opposite", r, known)
		case known && code != r.Code():
			t.Errorf("%s has the code %d, but the word of %d", r, r.Code(), code)
		}
	}
}
