package wheel

import (
	"math"
	"testing"
	"time"
	"unsafe"
)

// sessionOf returns the session of a timer, its first field.
func sessionOf(t *Timer) *session { return (*session)(unsafe.Pointer(t)) }

func TestTimerSize(t *testing.T) {
	want := uintptr(32)
	if unsafe.Sizeof(uintptr(0)) == 4 {
		want = 24
	}
	if got := unsafe.Sizeof(Timer{}); got != want {
		t.Errorf("a Timer takes %d bytes, want %d", got, want)
	}
	if unsafe.Offsetof(session{}.Timer) != 0 {
		t.Error("the timer is not the first field of a session")
	}
}

func TestTimeoutMillis(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want uint32
	}{
		{math.MinInt64, 0},
		{-1, 0},
		{0, 0},
		{1, 1},
		{time.Millisecond, 1},
		{time.Millisecond + 1, 2},
		{37500 * time.Millisecond, 37500},
		{(1<<32 - 1) * time.Millisecond, 1<<32 - 1},
		{(1<<32-1)*time.Millisecond + 1, 1<<32 - 1},
		{math.MaxInt64, 1<<32 - 1},
	} {
		if got := timeoutMillis(c.d); got != c.want {
			t.Errorf("timeoutMillis(%d) = %d, want %d", c.d, got, c.want)
		}
	}
}

func TestTimerDeadline(t *testing.T) {
	var tm Timer
	if tm.Armed() {
		t.Error("the zero Timer is armed")
	}
	l := newManual(Config{}).Loop
	l.Arm(&tm, 5, 3*time.Second)
	if !tm.Armed() || tm.Last() != 5 || tm.Timeout() != 3*time.Second || tm.Deadline() != 5+3e9 {
		t.Errorf("armed: %+v", &tm)
	}
	tm.Touch(7)
	if tm.Last() != 7 || tm.Deadline() != 7+3e9 {
		t.Errorf("touched: %+v", &tm)
	}
	l.SetTimeout(&tm, math.MaxInt64)
	if tm.Deadline() <= 7 {
		t.Errorf("the longest timeout overflows: deadline %d", tm.Deadline())
	}
}
