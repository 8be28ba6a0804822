package daemon

import (
	"errors"
	"os"
	"slices"

	"heartwheel/internal/handover"
	"heartwheel/internal/settings"
	"heartwheel/server"
)

// A reloading is what came of settings that were read anew. Those that could change are
// in force in the server, unless err says why not.
type reloading struct {
	now           *settings.Resolved
	changed, kept []settings.Change
	err           error
	order         *handover.ReloadRequest // of the supervisor; nil: SIGHUP
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
	d.take(nil, func() (*settings.Resolved, error) { return d.process.Resolve(d.process.Read()) })
}

// obey begins to take the settings that the supervisor has read.
func (d *daemon) obey(order handover.ReloadRequest) {
	d.take(&order, func() (*settings.Resolved, error) { return d.process.Resolve(order.File) })
}

// take puts in force what can change of what read returns, without waiting: files may be
// on a disk that does not answer, keys on a server that does not. d.r stays as it is
// meanwhile.
func (d *daemon) take(order *handover.ReloadRequest, read func() (*settings.Resolved, error)) {
	result := make(chan reloading, 1)
	d.reading = result
	got := reloading{now: d.r.Clone(), order: order}
	go func() {
		next, err := read()
		if err == nil {
			got.changed, got.kept = got.now.TakeLive(next)
			if err = d.s.Reload(got.now.Config); err != nil {
				err = settings.InFlags(err)
			}
		}
		got.err = err
		result <- got
	}()
}

// reloaded goes on with the settings that are in force now, or says in the log why they
// are not.
func (d *daemon) reloaded(got reloading) {
	d.reading = nil
	if errors.Is(got.err, server.ErrClosed) { // a drain has begun
		if got.order != nil {
			got.order.Answer(false)
		}
		return
	}
	if got.err != nil {
		settings.LogReloadFailed(d.log, got.err)
	} else {
		d.r = got.now
		if d.process.quota != nil {
			d.process.quota.SetLimit(d.r.MaxConnections)
		}
	}
	switch {
	case got.order != nil:
		if got.err == nil {
			d.process.SetLog(d.r)
		}
		got.order.Answer(got.err == nil)
	case !d.drainFrom.IsZero(): // the service manager knows that this process stops
	case got.err != nil:
		d.process.Notifier.Notify("READY=1", "STATUS=the last reload failed, see the log")
	default:
		fix := settings.FixHandOver
		workers := slices.ContainsFunc(got.kept, func(c settings.Change) bool { return c.Key == "workers" })
		if os.Getpid() == 1 || workers {
			fix = settings.FixRestart
		}
		d.r.LogReloaded(d.log, d.process.SetLog, got.changed, got.kept, fix)
		d.process.Notifier.Notify("READY=1", "STATUS=")
	}
}
