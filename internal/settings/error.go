package settings

import "strings"

// A UsageError is wrong usage or wrong settings: nothing was started.
type UsageError struct {
	Lines []string // what is wrong, one line each
	Help  string   // the command whose help says more
}

func (e *UsageError) Error() string { return strings.Join(e.Lines, "\n") }

// A Failure is an error at run time.
type Failure struct {
	Err    error
	Logged bool // the log says so already
}

func (e *Failure) Error() string { return e.Err.Error() }

// Unwrap returns the error itself.
func (e *Failure) Unwrap() error { return e.Err }
