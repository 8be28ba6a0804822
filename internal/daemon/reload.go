package daemon

import (
	"os"
	"slices"

	"heartwheel/internal/handover"
	"heartwheel/internal/settings"
)

// resolved is what came of reading the settings anew.
type resolved struct {
	r   *settings.Resolved
	err error
}

// reload begins to read the settings anew: SIGHUP.
func (d *daemon) reload() {
	switch {
	case !d.drainFrom.IsZero():
		d.log.Warn("SIGHUP ignored: this process is draining")
		return
	case d.result != nil:
		d.log.Warn("SIGHUP ignored: a hand-over is under way, and the new process reads the file")
		return
	}
	d.process.Notifier.Notify(handover.Reloading()...)
	reading := make(chan resolved, 1)
	d.reading = reading
	go func() { // the file may be on a disk that does not answer
		r, err := d.process.Resolve(d.process.Read())
		reading <- resolved{r, err}
	}()
}

// reloaded puts in force what a reload has read.
func (d *daemon) reloaded(got resolved) {
	d.reading = nil
	if !d.drainFrom.IsZero() {
		return
	}
	var changed, kept []settings.Change
	if got.err == nil {
		changed, kept, got.err = d.take(got.r)
	}
	if got.err != nil {
		settings.LogReloadFailed(d.log, got.err)
		d.process.Notifier.Notify("READY=1", "STATUS=the last reload failed, see the log")
		return
	}
	fix := settings.FixHandOver
	if os.Getpid() == 1 || slices.ContainsFunc(kept, func(c settings.Change) bool { return c.Key == "workers" }) {
		fix = settings.FixRestart
	}
	d.r.LogReloaded(d.log, d.process.SetLog, changed, kept, fix)
	d.process.Notifier.Notify("READY=1", "STATUS=")
}

// obey takes the settings that the supervisor has read, and says in the log why not
// if it cannot.
func (d *daemon) obey(order handover.ReloadRequest) {
	next, err := d.process.Resolve(order.File)
	if err == nil {
		_, _, err = d.take(next)
	}
	if err != nil {
		settings.LogReloadFailed(d.log, err)
	} else {
		d.process.SetLog(d.r)
	}
	order.Answer(err == nil)
}

// take puts in force what can change of next.
func (d *daemon) take(next *settings.Resolved) (changed, kept []settings.Change, err error) {
	now := d.r.Clone()
	changed, kept = now.TakeLive(next)
	if err := d.s.Reload(now.Config); err != nil {
		return nil, nil, settings.InFlags(err)
	}
	if d.process.quota != nil {
		d.process.quota.SetLimit(now.MaxConnections)
	}
	d.r = now
	return changed, kept, nil
}
