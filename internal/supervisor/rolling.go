package supervisor

import (
	"time"

	"heartwheel/internal/settings"
	"heartwheel/internal/wording"
)

// rollingShare: every fourth worker drains at the same time in a rolling restart.
// Fewer would take longer, as each takes the time of a drain; with more, more
// clients reconnect at once, and more of them to a worker yet to be replaced.
const rollingShare = 4

// A rolling restart replaces all workers, a few at a time. It belongs to the
// goroutine of supervisor.run.
type rolling struct {
	settings *workerSettings
	started  time.Time
	next     int // slot to go on with
	atOnce   int // workers that may drain at the same time
	replaced int // new workers that became ready
	failed   bool
}

// handOver reads the settings anew and begins a rolling restart with them: SIGUSR2.
func (v *supervisor) handOver() {
	switch {
	case v.stopping:
		v.log.Warn("SIGUSR2 ignored: the workers are draining")
		return
	case v.rolling != nil:
		v.log.Warn("SIGUSR2 ignored: a rolling restart is under way")
		return
	case !v.serving:
		v.log.Warn("SIGUSR2 ignored: the workers are starting")
		return
	}
	v.readAnew(func(file *settings.File, now *settings.Resolved, _ error) {
		// The new program may know more: its workers judge the file.
		v.rollingRestart(&workerSettings{base: file, now: now})
	})
}

// rollingRestart begins one.
func (v *supervisor) rollingRestart(from *workerSettings) {
	if v.stopping {
		return
	}
	if from.base != nil && from.base.Err != nil {
		v.log.Error("replacement failed: nothing has changed, the workers go on", "file", v.settings.File,
			"error", from.base.Err)
		v.Notifier.Notify("READY=1", "STATUS=the last replacement failed, see the log")
		return
	}
	atOnce := max(1, len(v.slots)/rollingShare)
	rounds := (len(v.slots) + atOnce - 1) / atOnce
	v.rolling = &rolling{settings: from, started: time.Now(), atOnce: atOnce}
	v.log.Info("replacing the workers", "workers", len(v.slots), "at_once", atOnce, "path", v.Program.Path,
		"about_at_most", wording.Duration(time.Duration(rounds)*v.settings.Drain))
	v.rollOn()
}

// rollOn continues a rolling restart after a worker became ready or ended.
func (v *supervisor) rollOn() {
	r := v.rolling
	if r == nil || v.stopping {
		return
	}
	draining, starting := 0, false
	for _, s := range v.slots {
		if s.old != nil {
			draining++
		}
		starting = starting || s.starting && s.current != nil
	}
	for !r.failed && !starting && r.next < len(v.slots) && draining < r.atOnce {
		s := v.slots[r.next]
		r.next++
		if s.current == nil || s.starting { // it is getting a new worker anyway
			continue
		}
		v.start(s)
		starting = true
	}
	if starting || draining > 0 || !r.failed && r.next < len(v.slots) {
		return
	}
	v.rolling = nil
	took := time.Since(r.started).Round(time.Millisecond).String()
	if r.failed {
		v.log.Error("the rest of the workers go on unchanged", "replaced", r.replaced, "of", len(v.slots), "took", took)
		v.Notifier.Notify("READY=1", "STATUS=not all workers were replaced, see the log")
		return
	}
	v.log.Info("workers replaced", "workers", len(v.slots), "took", took)
	v.Notifier.Notify("READY=1", "STATUS=")
}

// rollFailed ends a rolling restart in which a new worker did not become ready.
// Its slot keeps the worker it has.
func (v *supervisor) rollFailed(s *slot, err error, stderr string) {
	args := []any{"worker", s.index, "error", err}
	if stderr != "" {
		args = append(args, "stderr", stderr)
	}
	if v.rolling != nil && v.rolling.replaced == 0 {
		v.log.Error("replacement failed: nothing has changed, the workers go on", args...)
		v.rolling = nil
		v.Notifier.Notify("READY=1", "STATUS=the last replacement failed, see the log")
		return
	}
	v.log.Error("replacement stopped: a new worker did not become ready", args...)
	if v.rolling != nil {
		v.rolling.failed = true
		v.rollOn()
	}
}
