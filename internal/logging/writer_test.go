package logging

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A valve is a writer that blocks while it is shut.
type valve struct {
	mu   sync.Mutex
	open sync.Cond
	shut bool
	err  error
	text strings.Builder
}

func newValve() *valve {
	v := new(valve)
	v.open.L = &v.mu
	return v
}

func (v *valve) Write(b []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.shut {
		v.open.Wait()
	}
	if v.err != nil {
		return 0, v.err
	}
	return v.text.Write(b)
}

func (v *valve) set(shut bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shut, v.err = shut, err
	v.open.Broadcast()
}

func (v *valve) String() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.text.String()
}

func TestBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newValve()
		l := NewWriter(v, 10)
		l.ReportDropped(func(n uint64) []byte { return fmt.Appendf(nil, "lost %d\n", n) })
		fmt.Fprint(l, "1\n")
		synctest.Wait()
		v.set(true, nil)
		fmt.Fprint(l, "2\n") // taken by the goroutine, which blocks
		synctest.Wait()
		for range 7 { // five fit
			fmt.Fprint(l, "3\n")
		}
		if got := l.Dropped(); got != 2 {
			t.Errorf("%d lines were dropped, want 2", got)
		}
		v.set(false, nil)
		synctest.Wait()
		if got, want := v.String(), "1\n2\nlost 2\n3\n3\n3\n3\n3\n"; got != want {
			t.Errorf("written: %q, want %q", got, want)
		}
		l.Close(time.Hour)
	})
}

// A writer that fails loses lines, which are counted and reported later.
func TestBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newValve()
		l := NewWriter(v, 0)
		l.ReportDropped(func(n uint64) []byte { return fmt.Appendf(nil, "lost %d\n", n) })
		v.set(false, errors.New("broken pipe"))
		fmt.Fprint(l, "1\n")
		synctest.Wait()
		v.set(false, nil)
		fmt.Fprint(l, "2\n")
		l.Close(time.Hour)
		if got := v.String(); got != "2\nlost 1\n" || l.Dropped() != 1 {
			t.Errorf("written: %q, %d dropped", got, l.Dropped())
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newValve()
		l := NewWriter(v, 0)
		v.set(true, nil)
		fmt.Fprint(l, "1\n")
		start := time.Now()
		l.Close(3 * time.Second)
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("Close of a blocked log took %s, want 3s", took)
		}
		fmt.Fprint(l, "2\n")
		v.set(false, nil)
		l.Close(time.Hour)
		if got := v.String(); got != "1\n" || l.Dropped() != 1 {
			t.Errorf("written: %q, %d dropped; want 1 and 1", got, l.Dropped())
		}
	})
}
