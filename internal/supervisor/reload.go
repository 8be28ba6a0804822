package supervisor

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"heartwheel/internal/admission"
	"heartwheel/internal/handover"
	"heartwheel/internal/settings"
)

// workerSettings is where workers have their settings from. They do not read the
// file themselves, so that all of them, one that is restarted at night included,
// have the settings that an operator has put in force. It belongs to the goroutine
// of supervisor.run.
type workerSettings struct {
	base   *settings.File     // the file when the workers were started or replaced; nil: there is none
	reload *settings.File     // as it was last reloaded since; nil: it was not
	now    *settings.Resolved // what base comes to; nil: this program cannot tell
}

// drain returns how long a worker's drain takes. current is what the supervisor
// itself has in force.
func (w *workerSettings) drain(current *settings.Resolved) time.Duration {
	if w.now != nil && w.reload == nil {
		return w.now.Drain
	}
	return current.Drain
}

// adopt puts in force, for the supervisor itself, the settings that workers have
// been replaced with; nil if it could not read them.
func (v *supervisor) adopt(now *settings.Resolved) {
	if now == nil {
		return
	}
	v.settings = now
	v.SetLog(now)
	v.warnOfLimits()
	v.mu.Lock()
	v.limit = now.MaxConnections
	v.mu.Unlock()
}

// warnOfLimits is for limits that have changed.
func (v *supervisor) warnOfLimits() {
	if descriptors, _ := admission.RaiseDescriptorLimit(); descriptors != 0 {
		warnOfLimits(v.settings, v.log, len(v.slots), descriptors)
	}
}

// reload begins to read the settings anew: SIGHUP.
func (v *supervisor) reload() {
	switch {
	case v.stopping:
		v.log.Warn("SIGHUP ignored: the workers are draining")
		return
	case !v.serving:
		v.log.Warn("SIGHUP ignored: the workers are starting")
		return
	}
	v.readAnew(func(file *settings.File, next *settings.Resolved, err error) {
		switch {
		case v.stopping:
		case err != nil:
			settings.LogReloadFailed(v.log, err)
			v.Notifier.Notify("READY=1", "STATUS=the last reload failed, see the log")
		default:
			v.pass(file, next)
		}
	})
}

// readAnew reads the settings anew, and then has the supervisor's goroutine call f.
func (v *supervisor) readAnew(f func(*settings.File, *settings.Resolved, error)) {
	v.Notifier.Notify(handover.Reloading()...)
	v.reading = true
	go func() { // the file may be on a disk that does not answer
		file := v.Read()
		next, err := v.Resolve(file)
		v.post(func() {
			v.reading = false
			f(file, next, err)
		})
	}()
}

// pass has the workers, and those to come, take what can change of next.
func (v *supervisor) pass(file *settings.File, next *settings.Resolved) {
	now := v.settings.Clone()
	changed, kept := now.TakeLive(next)
	v.settings = now
	v.mu.Lock()
	v.limit = now.MaxConnections
	v.mu.Unlock()
	if len(changed) > 0 {
		v.warnOfLimits()
	}
	var workers []*worker
	for _, s := range v.slots {
		s.settings.reload = file
		if s.current != nil {
			workers = append(workers, s.current)
			s.current.drainTime = max(s.current.drainTime, now.Drain) // until it has taken them
		}
	}
	if v.rolling != nil {
		v.rolling.settings.reload = file
	}
	fix := settings.FixHandOver
	if slices.ContainsFunc(kept, func(c settings.Change) bool {
		return slices.Contains([]string{"workers", "listen", "listeners", "ops"}, c.Key)
	}) {
		fix = settings.FixRestart
	}
	if file == nil {
		v.passed(now, changed, kept, fix, workers, nil)
		return
	}
	v.reading = true
	go func() {
		problems := make([]string, len(workers))
		var wg sync.WaitGroup
		for i, w := range workers {
			wg.Go(func() {
				if err := w.control.Reload(file); err != nil {
					problems[i] = fmt.Sprintf("%s: %s", w, err)
				}
			})
		}
		wg.Wait()
		v.post(func() {
			v.reading = false
			v.passed(now, changed, kept, fix, workers, problems)
		})
	}()
}

// passed logs the result of a reload. problems has a line for each worker that has
// not taken the settings.
func (v *supervisor) passed(
	now *settings.Resolved, changed, kept []settings.Change, fix string, workers []*worker, problems []string,
) {
	status := "STATUS="
	for i, problem := range problems {
		select {
		case <-workers[i].Done(): // its successor is started with them
			continue
		default:
		}
		if problem == "" {
			workers[i].drainTime = now.Drain
			continue
		}
		v.log.Error("a worker has not taken the settings and keeps those it has", "error", problem,
			"fix", "send SIGHUP again, or SIGUSR2 to replace the workers")
		status = "STATUS=not all workers have reloaded, see the log"
	}
	now.LogReloaded(v.log, v.SetLog, changed, kept, fix, "workers", len(workers))
	v.Notifier.Notify("READY=1", status)
}

// tell has one worker take the settings of file.
func (v *supervisor) tell(w *worker, file *settings.File) {
	go func() {
		if err := w.control.Reload(file); err != nil {
			v.log.Error("a worker has not taken the settings and keeps those it has", "worker", w.index, "error", err)
		}
	}()
}
