package wheel

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/RussellLuo/timingwheel"
)

// The races between timingwheel's goroutine and its callers cannot be produced
// through its interface: these tests hold the locks of its buckets, as a busy machine
// does by chance.

// bucketLock returns the lock of bucket i.
func bucketLock(tw *timingwheel.TimingWheel, i int) *sync.Mutex {
	b := reflect.ValueOf(tw).Elem().FieldByName("buckets").Index(i)
	mu, _ := b.Type().Elem().FieldByName("mu")
	return (*sync.Mutex)(unsafe.Add(b.UnsafePointer(), mu.Offset))
}

// wheelTime returns its clock in ms: the wall clock at the latest expiry.
func wheelTime(tw *timingwheel.TimingWheel) int64 {
	f := reflect.ValueOf(tw).Elem().FieldByName("currentTime")
	return atomic.LoadInt64((*int64)(unsafe.Pointer(f.UnsafeAddr())))
}

// levels returns the number of its levels of buckets.
func levels(tw *timingwheel.TimingWheel) (n int) {
	for tw != nil {
		n++
		f := reflect.ValueOf(tw).Elem().FieldByName("overflowWheel")
		tw = (*timingwheel.TimingWheel)(atomic.LoadPointer((*unsafe.Pointer)(unsafe.Pointer(f.UnsafeAddr()))))
	}
	return n
}

// TestBareTimingwheelLocksUp shows the fault that this package is built around
// (timingwheel issue 53): a delayed caller of AfterFunc leaves two rounds of timers in
// one bucket, Flush puts the later one back into the bucket whose lock it holds, and
// the wheel stops for ever. As nothing frees it, it runs in a process of its own.
func TestBareTimingwheelLocksUp(t *testing.T) {
	const env, locked = "HEARTWHEEL_TEST_LOCK_UP", 42
	if os.Getenv(env) != "" {
		for range 50 {
			if lockUp() {
				os.Exit(locked)
			}
		}
		os.Exit(0)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "-test.run=^TestBareTimingwheelLocksUp$")
	cmd.Env = append(os.Environ(), env+"=1")
	var exit *exec.ExitError
	switch err := cmd.Run(); {
	case errors.As(err, &exit) && exit.ExitCode() == locked:
	case err == nil, ctx.Err() != nil:
		t.Skip("this machine is too slow to time it")
	default:
		t.Error(err)
	}
}

// lockUp reports whether it has locked up a bare timingwheel, which depends on the
// clock.
func lockUp() bool {
	const tickMs, size = 10, 8
	tw := timingwheel.NewTimingWheel(tickMs*time.Millisecond, size)
	tw.Start()

	v := time.Now().UnixMilli()/tickMs + 3 // the tick of the first timer
	mu := bucketLock(tw, int(v%size))
	done := make(chan struct{}, 2)
	after := func(tick int64) { // in the middle of that tick
		tw.AfterFunc(time.Until(time.UnixMilli(tick*tickMs+tickMs/2)), func() {})
		done <- struct{}{}
	}
	for _, d := range []int64{-2, -1, 1, 2} { // keeps its clock going past v
		after(v + d)
		<-done
	}
	mu.Lock()
	go after(v) // the caller that is delayed
	give := time.Now().Add(200 * time.Millisecond)
	for wheelTime(tw) < (v+1)*tickMs && time.Now().Before(give) {
		time.Sleep(time.Millisecond / 2)
	}
	held := make(chan struct{})
	go func() { // delays Flush behind the next caller
		mu.Lock()
		close(held)
		time.Sleep(20 * time.Millisecond)
		mu.Unlock()
	}()
	time.Sleep(2 * time.Millisecond)
	go after(v + size) // within the span of the wheel, but a round later
	time.Sleep(5 * time.Millisecond)
	// A waiter that finds the lock taken again after a millisecond gets it next, and
	// so do those after it, in order.
	mu.Unlock()
	mu.Lock()
	time.Sleep(2 * time.Millisecond)
	mu.Unlock()

	stopped := make(chan struct{})
	go func() {
		<-held
		<-done
		<-done
		tw.Stop()
		close(stopped)
	}()
	select {
	case <-stopped:
		return false
	case <-time.After(time.Second):
		return heldBucket(tw, size) >= 0
	}
}

// heldBucket returns a bucket whose lock is held for long, -1 if there is none.
func heldBucket(tw *timingwheel.TimingWheel, size int) int {
	for i := range size {
		give := time.Now().Add(100 * time.Millisecond)
		for {
			if mu := bucketLock(tw, i); mu.TryLock() {
				mu.Unlock()
				break
			}
			if time.Now().After(give) {
				return i
			}
			time.Sleep(time.Millisecond)
		}
	}
	return -1
}

// The same delays under this package: callers that wait 0 to 60 ms inside
// AfterFunc, ticks of 10 ms and deadlines of 10 to 79 ms.
func TestDelaysDoNotLockUp(t *testing.T) {
	w := New(Config{Tick: 10 * time.Millisecond})
	defer w.Close()
	first := w.scheduler.Load()
	tw := first.tw.(realDriver).tw

	quit := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(3, uint64(i)))
			for {
				select {
				case <-quit:
					return
				default:
				}
				mu := bucketLock(tw, rng.IntN(driverSlots))
				mu.Lock()
				time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
				mu.Unlock()
			}
		})
	}
	end := time.Now().Add(time.Second)
	var loops sync.WaitGroup
	for i := range 3 {
		e := newEventLoop(t, w)
		loops.Add(1)
		e.do(func() {
			rng := rand.New(rand.NewPCG(4, uint64(i)))
			again := func() time.Duration { return time.Duration(10+rng.IntN(70)) * time.Millisecond }
			ss := make([]session, 100)
			left := len(ss)
			e.onDue = func(s *session) {
				if e.now < s.Deadline() {
					t.Error("due early")
				}
				if time.Now().Before(end) {
					e.Arm(&s.Timer, e.now, again())
				} else if left--; left == 0 {
					loops.Done()
				}
			}
			for j := range ss {
				e.Arm(&ss[j].Timer, e.now, again())
			}
		})
	}
	loops.Wait()
	close(quit)
	wg.Wait()
	if i := heldBucket(tw, driverSlots); i >= 0 {
		t.Errorf("bucket %d is locked up", i)
	}
}

// Every bucket of timingwheel is locked up, so that Flush, AfterFunc and Stop hang.
func TestRealLockUp(t *testing.T) {
	w := New(Config{Tick: 20 * time.Millisecond})
	defer w.Close()
	e := newEventLoop(t, w)
	ss := make([]session, 100)
	arm := func() (done chan struct{}) {
		done = make(chan struct{})
		e.do(func() {
			left := len(ss)
			e.onDue = func(s *session) {
				if e.now < s.Deadline() {
					t.Error("due early")
				}
				if left--; left == 0 {
					close(done)
				}
			}
			for i := range ss {
				e.Arm(&ss[i].Timer, e.now, time.Duration(5*i)*time.Millisecond)
			}
		})
		return done
	}
	<-arm()

	tw := w.scheduler.Load().tw.(realDriver).tw
	before := w.Rebuilds()
	for i := range driverSlots {
		bucketLock(tw, i).Lock()
	}
	defer func() {
		for i := range driverSlots {
			bucketLock(tw, i).Unlock()
		}
	}()
	<-arm()
	<-arm()
	for w.Rebuilds() == before {
		time.Sleep(time.Millisecond)
	}
	if w.scheduler.Load().tw.(realDriver).tw == tw {
		t.Error("the locked-up timing wheel is still in use")
	}
}
