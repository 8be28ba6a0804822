package settings

import (
	"errors"
	"log/slog"
	"strings"

	"heartwheel/internal/config"
)

// A Change is a setting with another value than before.
type Change = config.Change

// What to do about settings that a reload cannot change.
const (
	FixHandOver = "send SIGUSR2: a new process takes over and has them"
	FixRestart  = "restart the server"
)

// LogReloaded logs what a reload has changed to come to r, and in a line of its own
// what it could not, with what to do about that. setLog puts the log settings of r
// in force: after the line if they would hide it.
func (r *Resolved) LogReloaded(
	log *slog.Logger, setLog func(*Resolved), changed, kept []Change, fix string, more ...any,
) {
	if r.LogLevel == "debug" || r.LogLevel == "info" {
		setLog(r)
	} else {
		defer setLog(r)
	}
	what := changes(changed)
	if what == "" {
		what = "nothing"
	}
	log.Info("settings reloaded", append([]any{"changed", what}, more...)...)
	if len(kept) > 0 {
		log.Warn("some settings cannot change while the server runs; they stay as they were",
			"settings", changes(kept), "fix", fix)
	}
}

func changes(all []Change) string {
	texts := make([]string, len(all))
	for i, c := range all {
		texts[i] = c.String()
	}
	return strings.Join(texts, "; ")
}

// LogReloadFailed logs why a reload has changed nothing, a line for each problem.
func LogReloadFailed(log *slog.Logger, err error) {
	lines := []string{err.Error()}
	var usage *UsageError
	if errors.As(err, &usage) {
		lines = usage.Lines
	}
	for _, line := range lines {
		log.Error("reload failed: nothing has changed", "error", line)
	}
}
