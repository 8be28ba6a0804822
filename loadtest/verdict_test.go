package loadtest

import (
	"slices"
	"strings"
	"testing"

	"heartwheel/loadtest/report"
)

func passed() *report.Summary {
	return &report.Summary{
		Connections: report.Connections{Asked: 10, Established: 10, AtEnd: 10},
		Detection: &report.Detection{TimeoutMS: 7500, BoundMS: 200, Injected: 1, Detected: 1,
			ErrorMS: &report.Distribution{Count: 1, Max: 250}},
	}
}

// limited makes a generator that was late by at most 20 ms.
func limited(change func(s *report.Summary)) func(s *report.Summary) {
	return func(s *report.Summary) {
		s.Generator.Limited, s.Generator.Why = true, []string{"frames lagged"}
		s.Generator.LagUS = &report.Distribution{Count: 2000, Max: 20_000}
		if change != nil {
			change(s)
		}
	}
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name        string
		change      func(s *report.Summary)
		gates       []string
		interrupted bool
		word        string
		code        int
		reason      string // one of the reasons contains it
	}{
		{name: "pass", change: func(*report.Summary) {}, word: report.Pass, code: 0},
		{name: "gate kept", change: func(*report.Summary) {}, gates: []string{"false_kills==0"}, word: report.Pass,
			code: 0},
		{name: "not all established", change: func(s *report.Summary) {
			s.Connections.Established, s.Connections.Failed = 8, 2
			s.Connections.Failures = []report.Failure{{Error: "connection refused", Count: 2}}
		}, word: report.Failed, code: 1,
			reason: "8 of 10 connections established: 2 failed, 0 refused; most often: connection refused"},
		{name: "refused", change: func(s *report.Summary) { s.Connections.Refused = 1 }, word: report.Failed, code: 1,
			reason: "1 refused"},
		{name: "refused, but allowed", change: func(s *report.Summary) {
			s.Connections.Established,
				s.Connections.Refused = 9, 1
		},
			gates: []string{"established>=9"}, word: report.Pass, code: 0},
		{name: "false kill", change: func(s *report.Summary) {
			s.FalseKills = report.Closes{Count: 1, Examples: []report.CloseExample{{Text: "at 3 s"}}}
		}, word: report.Failed, code: 1, reason: "1 false kill; the worst: at 3 s"},
		{name: "false kill against a gate", change: func(s *report.Summary) { s.FalseKills.Count = 1 },
			gates: []string{"false_kills==0"}, word: report.Breached, code: 3,
			reason: "gate false_kills==0: measured 1"},
		{name: "false kill within a gate", change: func(s *report.Summary) { s.FalseKills.Count = 1 },
			gates: []string{"false_kills<5"}, word: report.Pass, code: 0},
		{name: "unexplained", change: func(s *report.Summary) { s.Unexplained.Count = 2 }, word: report.Failed, code: 1,
			reason: "2 unexplained closes"},
		{name: "wrong", change: func(s *report.Summary) { s.Frames.Wrong, s.Frames.WrongExample = 1, "x" },
			word: report.Failed, code: 1, reason: "1 wrong answer; the first: x"},
		{name: "on its way at the end", change: func(s *report.Summary) {
			s.Frames.Unanswered,
				s.Frames.OldestUnansweredMS = 3, 1000
		}, word: report.Pass},
		{name: "never answered", change: func(s *report.Summary) {
			s.Frames.Unanswered, s.Frames.OldestUnansweredMS = 3,
				1001
		}, word: report.Failed, code: 1, reason: "3 frames had no answer"},
		{name: "closed for a drain", change: func(s *report.Summary) {
			s.Connections.Told = []report.Told{{Code: 3001, Meaning: "draining", Count: 5}}
		}, word: report.Pass},
		{name: "closed with another code", change: func(s *report.Summary) {
			s.Connections.Told = []report.Told{{Code: 3001, Meaning: "draining", Count: 5},
				{Code: 3021, Meaning: "beat too often", Count: 5}}
		}, word: report.Failed, code: 1,
			reason: "5 connections closed with 3021 (beat too often)"},
		{name: "not back", change: func(s *report.Summary) {
			s.Detection.Faults = []report.FaultResult{{Reconnect: &report.Reconnect{Asked: 9, Established: 7}}}
		}, word: report.Failed, code: 1, reason: "2 connections did not reconnect"},
		{name: "undetected", change: func(s *report.Summary) { s.Detection.Undetected = 1 }, word: report.Failed,
			code: 1, reason: "1 dead peer not detected"},
		{name: "early", change: func(s *report.Summary) { s.Detection.Early = 2 }, word: report.Failed, code: 1,
			reason: "2 dead peers detected too early"},
		{name: "late", change: func(s *report.Summary) { s.Detection.Late = 1 }, word: report.Failed, code: 1,
			reason: "1 dead peer detected later than the bound of 200 ms; the latest by 250 ms"},
		{name: "gate of nothing", change: func(*report.Summary) {}, gates: []string{"rtt.p99<5ms"},
			word: report.Breached, code: 3, reason: "gate rtt.p99<5ms: nothing was measured"},
		{name: "gate and rule", change: func(s *report.Summary) { s.FalseKills.Count = 1 },
			gates: []string{"rtt.p99<5ms"},
			word:  report.Breached, code: 3, reason: "1 false kill"},
		{name: "limited", change: limited(nil), gates: []string{"false_kills==0", "rtt.p99<5ms", "detected>=1"},
			word: report.Invalid, code: 4, reason: "frames lagged"},
		{name: "limited, false kill", change: limited(func(s *report.Summary) { s.FalseKills.Count = 1 }),
			word: report.Failed, code: 1, reason: "1 false kill"},
		{name: "limited, false kill against a gate", change: limited(
			func(s *report.Summary) { s.FalseKills.Count = 1 }),
			gates: []string{"false_kills==0"}, word: report.Breached, code: 3,
			reason: "gate false_kills==0: measured 1"},
		{name: "limited, undetected", change: limited(func(s *report.Summary) { s.Detection.Undetected = 1 }),
			word: report.Failed, code: 1, reason: "1 dead peer not detected"},
		{name: "limited, early", change: limited(func(s *report.Summary) { s.Detection.Early = 1 }),
			word: report.Failed, code: 1, reason: "too early"},
		{name: "limited, said with the facts", change: limited(func(s *report.Summary) { s.Frames.Wrong = 1 }),
			word: report.Failed, code: 1, reason: "frames lagged"},
		{name: "limited, late by less than its lag", change: limited(func(s *report.Summary) {
			s.Detection.Late, s.Detection.ErrorMS.Max = 1, 219
		}), word: report.Invalid, code: 4, reason: "frames lagged"},
		{name: "limited, late by more than its lag", change: limited(func(s *report.Summary) {
			s.Detection.Late, s.Detection.ErrorMS.Max = 1, 221
		}), word: report.Failed, code: 1, reason: "1 dead peer detected later"},
		{name: "limited, gate of detection within its lag", change: limited(func(s *report.Summary) {}),
			gates: []string{"detect.max<=timeout+235ms"}, word: report.Invalid, code: 4, reason: "frames lagged"},
		{name: "limited, gate of detection beyond its lag", change: limited(func(s *report.Summary) {}),
			gates: []string{"detect.max<=timeout+229ms"}, word: report.Breached, code: 3, reason: "gate detect.max"},
		{name: "limited, unanswered for long", change: limited(func(s *report.Summary) {
			s.Frames.Unanswered, s.Frames.OldestUnansweredMS = 1, 1021
		}), word: report.Failed, code: 1, reason: "1 frame had no answer"},
		{name: "limited, closed with a code", change: limited(func(s *report.Summary) {
			s.Connections.Told = []report.Told{{Code: 3021, Count: 1}}
		}), word: report.Failed, code: 1, reason: "closed with 3021"},
		{name: "limited, at_end", change: limited(func(s *report.Summary) { s.Connections.AtEnd = 9 }),
			gates: []string{"at_end>=10"}, word: report.Breached, code: 3, reason: "gate at_end"},
		{name: "limited, at_end after lapses", change: limited(func(s *report.Summary) {
			s.Connections.AtEnd, s.Generator.Lapses = 9, 1
		}), gates: []string{"at_end>=10"}, word: report.Invalid, code: 4, reason: "frames lagged"},
		{name: "error", change: func(s *report.Summary) {
			s.Errors,
				s.Generator.Limited = []string{"worker process 1: killed"}, true
		}, word: report.Failed, code: 1, reason: "worker process 1"},
		{name: "interrupted", change: func(s *report.Summary) { s.Errors, s.FalseKills.Count = []string{"x"}, 1 },
			interrupted: true, word: report.Interrupted, code: 130, reason: "until then"},
	} {
		s := passed()
		c.change(s)
		var gates []Gate
		for _, text := range c.gates {
			g, err := parseGate(text)
			if err != nil {
				t.Fatal(err)
			}
			gates = append(gates, g)
			s.SLO = append(s.SLO, g.evaluate(s))
		}
		v := decide(s, gates, c.interrupted)
		if v.Word != c.word || v.ExitCode != c.code || (len(v.Reasons) == 0) != (c.reason == "") ||
			c.reason != "" && !slices.ContainsFunc(v.Reasons, func(r string) bool {
				return strings.Contains(r,
					c.reason)
			}) {
			t.Errorf("%s: %+v, want %s %d %q", c.name, v, c.word, c.code, c.reason)
		}
	}
	// A gate of --slo can replace every built-in one.
	for _, rule := range builtinGates {
		if !slices.Contains(counts, rule.metric) {
			t.Errorf("%s is not a metric", rule.metric)
		}
	}
}
