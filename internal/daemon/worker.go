package daemon

import (
	"fmt"
	"slices"
	"strings"

	"heartwheel/internal/handover"
	"heartwheel/internal/settings"
)

// checkUnchanged checks that the settings r of a new worker agree with its
// supervisor's in what the supervisor cannot change while it runs. addresses are
// those that it listens on.
func checkUnchanged(r *settings.Resolved, c *handover.Control, addresses []string, descriptors uint64) error {
	const fix = "cannot change while the supervisor runs; restart it, or change it back"
	want := r.ListenSockets()
	if !slices.Equal(slices.Sorted(slices.Values(addresses)), slices.Sorted(slices.Values(want))) {
		return fmt.Errorf("listen was %s and is now %s: it %s",
			strings.Join(addresses, ","), strings.Join(want, ","), fix)
	}
	if r.Ops != c.Ops {
		return fmt.Errorf("ops was %s and is now %s: it %s", c.Ops, r.Ops, fix)
	}
	n, err := r.WorkerCount(descriptors)
	if err != nil {
		return err
	}
	if n != c.Count {
		return fmt.Errorf("workers was %d and is now %d: it %s", c.Count, n, fix)
	}
	return nil
}
