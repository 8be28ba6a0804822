package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"heartwheel/codec"
)

// A herdProcess is the program in testdata/herd.
type herdProcess struct {
	t     testing.TB
	stdin io.Closer
	out   *json.Decoder
}

// A herdReport is what it prints in the end.
type herdReport struct {
	GoawayAt, EndedAt []int64 // monotonic
	Dials, Failed, In int
	Ends              map[string]int
	Goaways           map[codec.Code]int
	Late              time.Duration
}

// startHerds starts processes with conns clients in all, and returns when in
// of them are connected.
func startHerds(t testing.TB, s *serverProcess, processes, conns, in int, args ...string) []*herdProcess {
	t.Helper()
	path := program(t, "herd")
	var herds []*herdProcess
	for i := range processes {
		cmd := exec.Command(path, append(args, "-addr", s.addr, "-conns", strconv.Itoa(conns/processes),
			"-source", strconv.Itoa(80+i))...)
		cmd.Env, cmd.Stderr = ordinaryEnv(), os.Stderr
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		herds = append(herds, &herdProcess{t, stdin, json.NewDecoder(stdout)})
	}
	s.await(fmt.Sprintf("%d clients are connected", in), func(m metrics) bool {
		return m.value("heartwheel_connections") >= float64(in)
	})
	return herds
}

// report ends a herd's clients and adds what came of them to r.
func (h *herdProcess) report(r *herdReport) {
	h.t.Helper()
	if err := h.stdin.Close(); err != nil {
		h.t.Fatal(err)
	}
	var own herdReport
	if err := h.out.Decode(&own); err != nil {
		h.t.Fatalf("a herd's report: %v", err)
	}
	r.GoawayAt, r.EndedAt = append(r.GoawayAt, own.GoawayAt...), append(r.EndedAt, own.EndedAt...)
	r.Dials, r.Failed, r.In, r.Late = r.Dials+own.Dials, r.Failed+own.Failed, r.In+own.In, max(r.Late, own.Late)
	if r.Ends == nil {
		r.Ends, r.Goaways = map[string]int{}, map[codec.Code]int{}
	}
	for how, n := range own.Ends {
		r.Ends[how] += n
	}
	for code, n := range own.Goaways {
		r.Goaways[code] += n
	}
}
