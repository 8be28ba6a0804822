package admission

import (
	"bytes"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestReserve(t *testing.T) {
	for limit, want := range map[uint64]uint64{0: 64, 1024: 64, 3200: 64, 3250: 65, 1_000_000: 20_000} {
		if got := reserve(limit); got != want {
			t.Errorf("reserve(%d) = %d, want %d", limit, got, want)
		}
	}
}

func TestConnectionLimit(t *testing.T) {
	for _, test := range []struct {
		asked int
		limit uint64
		want  int64 // 0: an error
		warns bool
	}{
		{0, 1024, 960, false},
		{0, 1_000_000, 980_000, false},
		{100, 1024, 100, false},
		{960, 1024, 960, false},
		{961, 1024, 960, true},
		{1_000_000, 1_000_000, 980_000, true},
		{0, 65, 1, false},
		{0, 64, 0, false},
		{1000, 10, 0, false},
		{0, 1<<64 - 1, 1 << 31, false}, // no limit
		{1_000_000, 1<<64 - 1, 1_000_000, false},
	} {
		t.Run(fmt.Sprint(test.asked, "of", test.limit), func(t *testing.T) {
			var log bytes.Buffer
			got, err := connectionLimit(test.asked, test.limit, slog.New(slog.NewTextHandler(&log, nil)))
			if got != test.want || (err != nil) != (test.want == 0) {
				t.Fatalf("%d, %v; want %d", got, err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), "ulimit -n") {
				t.Errorf("%v does not say what to raise", err)
			}
			if warned := log.Len() > 0; warned != test.warns {
				t.Fatalf("warned: %v, want %v: %s", warned, test.warns, &log)
			}
			if !test.warns {
				return
			}
			// The advice must be right: with it the limit asked for holds.
			m := regexp.MustCompile(`ulimit -Hn (\d+), or LimitNOFILE=`).FindStringSubmatch(log.String())
			if m == nil {
				t.Fatalf("%s does not say what to raise", &log)
			}
			advice, _ := strconv.ParseUint(m[1], 10, 64)
			log.Reset()
			if got, err := connectionLimit(test.asked, advice,
				slog.New(slog.NewTextHandler(&log, nil))); got != int64(test.asked) || err != nil || log.Len() > 0 {
				t.Errorf("with a limit of %d as advised: %d, %v, %s", advice, got, err, &log)
			}
		})
	}
}

func TestCapacity(t *testing.T) {
	c := newCapacity(2, nil)
	if first, second, third := c.enter(), c.enter(), c.enter(); !first || !second || third {
		t.Fatal("the limit of 2 does not hold")
	}
	if !c.full() {
		t.Error("it is not full")
	}
	c.leave()
	if c.full() || !c.enter() {
		t.Error("the place of one that left is not free")
	}
	if n := c.live.Load(); n != 2 {
		t.Errorf("%d are counted, want 2", n)
	}
}
