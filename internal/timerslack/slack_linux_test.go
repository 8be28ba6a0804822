package timerslack

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The started process has the slack, and this thread has its own again.
func TestStart(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/self/timerslack_ns"); err != nil {
		t.Skip("this kernel does not show it")
	}
	cmd := exec.Command("cat", "/proc/self/timerslack_ns")
	var out strings.Builder
	cmd.Stdout = &out
	if err := Start(cmd, 3*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(out.String()); got != "3000000" {
		t.Errorf("the process has a slack of %s ns, want 3000000", got)
	}
	if after, _ := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); after != before {
		t.Errorf("this thread has a slack of %d ns, want %d", after, before)
	}
	if err := Start(exec.Command("/does/not/exist"), time.Millisecond); err == nil {
		t.Error("no error for a missing program")
	}
}
