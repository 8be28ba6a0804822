package cli

import (
	"time"

	"heartwheel/internal/wording"
)

// rollShare is the share of the workers that drain at one time when all are
// replaced: every fourth. Fewer would take longer, as each takes the time of a
// drain; more would have more clients come back at one time, and of those the
// more would meet a worker that is yet to be replaced.
const rollShare = 4

// A roll replaces all workers, some at a time. Of the goroutine of
// supervisor.run.
type roll struct {
	begun    time.Time
	next     int // place to go on with
	atOnce   int // workers that may drain at one time
	replaced int // new workers that got ready
	failed   bool
}

// replace begins a roll: SIGHUP.
func (v *supervisor) replace() {
	switch {
	case v.stopping:
		v.log.Warn("SIGHUP ignored: the workers drain")
		return
	case v.roll != nil:
		v.log.Warn("SIGHUP ignored: the workers are being replaced")
		return
	case !v.serving:
		v.log.Warn("SIGHUP ignored: the workers are starting")
		return
	}
	v.tell(reloading()...)
	atOnce := max(1, len(v.places)/rollShare)
	rounds := (len(v.places) + atOnce - 1) / atOnce
	v.roll = &roll{begun: time.Now(), atOnce: atOnce}
	v.log.Info("replacing the workers", "workers", len(v.places), "at_once", atOnce, "path", v.program.path,
		"about_at_most", wording.Duration(time.Duration(rounds)*v.r.Drain))
	v.rollOn()
}

// rollOn goes on with a roll, after a worker is ready or has ended.
func (v *supervisor) rollOn() {
	r := v.roll
	if r == nil || v.stopping {
		return
	}
	draining, starting := 0, false
	for _, p := range v.places {
		if p.old != nil {
			draining++
		}
		starting = starting || p.starting && p.current != nil
	}
	for !r.failed && !starting && r.next < len(v.places) && draining < r.atOnce {
		p := v.places[r.next]
		r.next++
		if p.current == nil || p.starting { // it is to get a new one anyway
			continue
		}
		v.start(p)
		starting = true
	}
	if starting || draining > 0 || !r.failed && r.next < len(v.places) {
		return
	}
	v.roll = nil
	took := time.Since(r.begun).Round(time.Millisecond).String()
	if r.failed {
		v.log.Error("the rest of the workers go on as they were", "replaced", r.replaced, "of", len(v.places), "took", took)
		v.tell("READY=1", "STATUS=not all workers were replaced, see the log")
		return
	}
	v.log.Info("workers replaced", "workers", len(v.places), "took", took)
	v.tell("READY=1", "STATUS=")
}

// rollFailed ends a roll in which a new worker did not get ready. Its place
// keeps the one it has.
func (v *supervisor) rollFailed(p *place, err error, said string) {
	args := []any{"worker", p.index, "error", err}
	if said != "" {
		args = append(args, "stderr", said)
	}
	if v.roll != nil && v.roll.replaced == 0 {
		v.log.Error("replacement failed: nothing has changed, the workers go on", args...)
		v.roll = nil
		v.tell("READY=1", "STATUS=the last replacement failed, see the log")
		return
	}
	v.log.Error("replacement stopped: a new worker did not get ready", args...)
	if v.roll != nil {
		v.roll.failed = true
		v.rollOn()
	}
}
